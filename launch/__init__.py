"""From a laptop to a pod: start the processes of one run, on one machine or on many."""
