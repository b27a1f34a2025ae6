"""What the tests share: named durations, scripted peers, outside programs."""
