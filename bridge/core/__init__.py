"""The pure middle: values in, values out. No clock, no chance, no system, no logging."""
