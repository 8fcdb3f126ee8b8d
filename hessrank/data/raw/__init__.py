"""RAW frames of cameras and of the MCR data set."""
