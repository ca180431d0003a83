"""Captions of files, folders, shards and the Hub: read strictly, counted, and kept where any block can be read again.

`open.read_captions` is the one way in. Each kind of file has a module: `text_files` (txt, encodings, compression),
`csv_files` with `headers`, `json_files` with `json_lines`, `parquet`, `hub`; to add one, name it in `folders.KINDS` and in
`open.READERS`. `folders` finds the files, `columns` the texts in a row, `values` tells what is no caption, `reading` cleans and
counts them, `spool` keeps them. Imports `deproj.process` and `deproj.texts.marks`; nothing needs torch.
"""
