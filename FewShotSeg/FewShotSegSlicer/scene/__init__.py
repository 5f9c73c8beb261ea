"""What lies in the MRML scene: state, supports, structures, segments, results."""
