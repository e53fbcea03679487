"""DICOM in and out: a study's T1w series to a volume, its mask to a DICOM segmentation, and a receiver for a PACS.

Importing this package alone imports none of the DICOM packages, which are optional: :mod:`bundle.dicom.files` finds out
whether they are needed.
"""
