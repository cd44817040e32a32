"""How quick envs, retinas, networks and the window are on this machine, beside what is least possible and peers."""
