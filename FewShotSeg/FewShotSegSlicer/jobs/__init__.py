"""Trainings and segmentations in the background process, from scene to scene."""
