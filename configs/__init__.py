"""One file a family: get_config(preset) gives a ConfigDict of plain values."""
