"""A folder of DICOM files as one volume, in the process that may crash on it.

``files`` finds the one series of a folder, ``headers`` takes from a file's header what a volume
needs, ``pixels`` reads the values, and ``series`` puts them onto a regular grid. Headers are read
with pydicom, which says what stands in a file; GDCM decodes compressed pixels, but is not asked
about anything else: it fills in what is missing (a spacing of 1 mm, a slope of 1), believes a
header against the pixels, and takes the geometry of an enhanced file from its first two frames.
"""
