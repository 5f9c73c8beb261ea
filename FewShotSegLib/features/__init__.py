"""Frozen features: preprocessing, the sliding window, the store on disk."""
