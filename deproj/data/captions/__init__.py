"""Captions of files, folders, shards and the Hub: read strictly, counted, and kept where any block can be read again.

`open.read_captions` is the one way in. Each kind of file has a module: `tables` with `headers` (csv, tsv), `documents` with
`json_lines`, `parquet`, `hub`, and `lines` (txt, encodings, compression); `folders` finds the files, `columns` the texts in
a row, `values` tells what is no caption, `reading` cleans and counts them, `spool` keeps them. Imports `deproj.process` and
`deproj.texts.marks`; nothing needs torch.
"""
