"""KaVa: distil a reasoning model's key/value cache into a small student."""
