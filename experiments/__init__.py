"""Studies: one thing changed, run fairly, and told what is signal and what is noise. One file a
study; `run` and `report` are the programs."""
