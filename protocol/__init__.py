"""Charter, records, canonical codec, component specs and the integer update format. Pure: no I/O."""
