"""The recurrence of `LSTMDeprojector`, forward and backward by hand.

The equations are those of `deproj.model.lstm`. What makes it faster than a loop of cells under autograd:

- fed the true states, everything that doesn't depend on the carried state is one product over all places, before
  the loop (inputs) or after it (outputs); fed its own output, a step is two products, on the joined
  [h, LN_x(x)] and on the joined [x, h], which are parts of one row;
- on a CPU the weights are laid out for many small products once (`products`), the memory of a step is used
  again by the next (`memory`), and what stands between two products is one compiled kernel (`fused`), where numba is there;
- backward keeps the gradients of the gates and makes each weight's gradient in one product over all places;
- without a gradient, nothing is kept of a place but its output.

Under autocast to bfloat16 the products take bfloat16; norms, nonlinearities, cell state and the sums over places stay in float32.

Imports nothing of deproj.
"""

from deproj.model.recurrence.memory import Buffers, Lease
from deproj.model.recurrence.parts import Variant, Weights
from deproj.model.recurrence.unrolling import unroll

__all__ = ["Buffers", "Lease", "Variant", "Weights", "unroll"]
