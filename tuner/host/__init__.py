"""What this machine does while a stage is measured: its cores, its GPUs, and who else uses them."""
