"""What the machine can do: its devices, FLOPs, roof, data sheets, energy, use of a GPU."""
