"""`python -m controlplane.wiring gate|placer`: a child process of the plane."""

import sys

from controlplane.wiring import gate, handed_down, placer

{"gate": gate, "placer": placer}[sys.argv[1]](handed_down())
