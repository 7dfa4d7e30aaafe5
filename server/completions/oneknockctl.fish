# The program knows its own commands and names.
COMPLETE=fish oneknockctl | source
