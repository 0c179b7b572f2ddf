"""How much and where: sensitivity of a network's parts, and widths that meet a target."""
