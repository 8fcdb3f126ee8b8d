"""Who gets which samples when, on which device, and how long to wait for them."""
