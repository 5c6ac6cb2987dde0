"""What the parts tell each other without knowing each other."""

from django.dispatch import Signal

# This process serves requests, as opposed to a command that ends when its work is done.
serving = Signal()
