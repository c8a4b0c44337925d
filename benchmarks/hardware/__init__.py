"""What the machine can do: FLOPs, the roof of its products, data sheets, energy, use of a GPU."""
