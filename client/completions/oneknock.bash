# The program knows its own commands and names.
source <(COMPLETE=bash oneknock)
