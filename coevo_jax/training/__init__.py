"""A round's learning on the devices: its batches, the hot loop over optimizer steps, and how fast it goes."""
