# The losses' kernels, included by _core.pyx: each checks its arrays, then makes one call without the GIL. Bits and
# formulas are those of fastopt/reference/losses.py.

cdef tuple _shape(cnp.ndarray a):
    """Not the attribute, which a subclass may have made anew."""
    return tuple([cnp.PyArray_DIM(a, i) for i in range(cnp.PyArray_NDIM(a))])


cdef object _check_operand(str what, cnp.ndarray a, object shape, bint written):
    """Refuses an array that a kernel cannot take as it lies."""
    if _shape(a) != shape:
        raise ValueError(f"{what} has shape {_shape(a)}: expected {shape}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(a) or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(
            f"{what} is not C-contiguous and aligned (strides {(<object>a).strides}): pass "
            + (f"np.empty({shape}, np.{a.dtype})" if written else "np.ascontiguousarray(x), or x.copy()")
        )
    if written and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{what} is read-only and is to be written: pass a writable array")


cdef object _check_like(str what, object a, str model_name, cnp.ndarray model, bint written):
    """The door for an array that must be as another one is."""
    _check_array(what, a)
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(model):
        raise TypeError(
            f"{what} has dtype {a.dtype} and {model_name} {model.dtype}: convert it with .astype(np.{model.dtype})"
        )
    _check_operand(what, a, _shape(model), written)


cdef object _check_doubles(str what, object a, object shape, bint written):
    _check_array(what, a)
    if cnp.PyArray_TYPE(a) != cnp.NPY_DOUBLE:
        raise TypeError(f"{what} has dtype {a.dtype}: expected float64")
    _check_operand(what, a, shape, written)


cdef object _check_classes(object a, object shape, Py_ssize_t columns):
    cdef const int64_t* classes
    cdef Py_ssize_t i
    if not isinstance(a, np.ndarray) or not cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(a), cnp.NPY_INT64) \
            or cnp.PyArray_ISBYTESWAPPED(a):
        found = f"has dtype {a.dtype}" if isinstance(a, np.ndarray) else f"is a {type(a).__name__}"
        raise TypeError(f"classes {found}: expected an array of int64; convert it with np.asarray(x, np.int64)")
    _check_operand("classes", a, shape, False)
    classes = <const int64_t*>cnp.PyArray_DATA(a)
    for i in range(cnp.PyArray_SIZE(a)):
        if not 0 <= classes[i] < columns:
            raise ValueError(
                f"classes[{i}] is {classes[i]}: expected 0 to {columns - 1}, as logits have {columns} columns"
            )


cdef object _check_apart(dict written, dict read):
    """Refuses memory that is written under another array; all are contiguous."""
    cdef uintptr_t low, high, other_low, other_high
    everything = {**read, **written}
    for name, a in written.items():
        for other, b in everything.items():
            if (
                other != name and a is not None and b is not None
                and _byte_range(a, &low, &high) and _byte_range(b, &other_low, &other_high)
                and low < other_high and other_low < high
            ):
                raise ValueError(
                    f"{name} and {other} overlap in memory, and {name} is written: pass an array of its own"
                )


cdef inline void* _data(object a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(<cnp.ndarray>a)


cdef fo_loss _loss(cnp.ndarray prediction, target, gradient, double scale, bint flush):
    """Elementwise, all but the losses filled in."""
    cdef fo_loss loss
    loss.dtype = FO_F32 if cnp.PyArray_TYPE(prediction) == cnp.NPY_FLOAT else FO_F64
    loss.flush, loss.threads, loss.scale = flush, _default_threads, scale
    loss.rows, loss.columns = cnp.PyArray_SIZE(prediction), 1
    loss.prediction, loss.target, loss.gradient = _data(prediction), _data(target), _data(gradient)
    loss.classes, loss.weights, loss.losses = NULL, NULL, NULL
    return loss


def softmax_cross_entropy(logits, classes, probabilities, weights, gradient, losses, bint flush=True):
    """losses[i] = -sum_j p[i, j] log softmax(logits[i])[j], and its gradient,
    weights[i] (sum_j p[i, j] softmax(logits[i]) - p[i]).

    logits : (rows, columns), float32 or float64, at least one column.
    classes : (rows,) int64, the column whose probability is 1; or None, and
    probabilities : of logits' shape and dtype, rows of any sum. Where one is 0 the logit may be -infinity.
    weights : (rows,) float64, or None for 1. Of the gradient only.
    gradient : of logits' shape and dtype, written; or None.
    losses : (rows,) float64, written.
    flush : subnormals count as zero.

    Raises TypeError and ValueError before anything is written, and RuntimeError, with some rows written, where
    another thread meanwhile makes a class one that there is not.
    """
    cdef fo_loss loss
    cdef int classes_stayed
    _check_array("logits", logits)
    if cnp.PyArray_NDIM(logits) != 2 or cnp.PyArray_DIM(logits, 1) == 0:
        raise ValueError(f"logits have shape {_shape(logits)}: expected (rows, columns), at least one column")
    if (classes is None) == (probabilities is None):
        raise ValueError("expected either classes or probabilities, and None for the other")
    _check_operand("logits", logits, _shape(logits), False)
    rows = (cnp.PyArray_DIM(logits, 0),)
    if classes is not None:
        _check_classes(classes, rows, cnp.PyArray_DIM(logits, 1))
    else:
        _check_like("probabilities", probabilities, "logits", logits, False)
    if weights is not None:
        _check_doubles("weights", weights, rows, False)
    if gradient is not None:
        _check_like("gradient", gradient, "logits", logits, True)
    _check_doubles("losses", losses, rows, True)
    _check_apart(
        {"gradient": gradient, "losses": losses},
        {"logits": logits, "classes": classes, "probabilities": probabilities, "weights": weights},
    )
    loss = _loss(logits, probabilities, gradient, 1, flush)
    loss.rows, loss.columns = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    loss.classes, loss.weights = <const int64_t*>_data(classes), <const double*>_data(weights)
    loss.losses = <double*>_data(losses)
    with nogil:
        classes_stayed = fo_softmax_cross_entropy(&loss)
    if not classes_stayed:
        raise RuntimeError("classes were changed while the loss was computed: leave them alone until it returns")


def sigmoid_cross_entropy(logits, targets, double scale, gradient, losses, bint flush=True):
    """losses = -z log sigmoid(x) - (1 - z) log(1 - sigmoid(x)) of logits x and targets z.

    logits, targets : of one shape and dtype, float32 or float64; targets in [0, 1].
    gradient : of logits' shape and dtype, written: scale (sigmoid(x) - z); or None.
    losses : of logits' shape, float64, written.
    flush : subnormals count as zero.

    Raises TypeError and ValueError before anything is written.
    """
    cdef fo_loss loss
    _check_array("logits", logits)
    _check_operand("logits", logits, _shape(logits), False)
    _check_like("targets", targets, "logits", logits, False)
    if gradient is not None:
        _check_like("gradient", gradient, "logits", logits, True)
    _check_doubles("losses", losses, _shape(logits), True)
    _check_apart({"gradient": gradient, "losses": losses}, {"logits": logits, "targets": targets})
    loss = _loss(logits, targets, gradient, scale, flush)
    loss.losses = <double*>_data(losses)
    with nogil:
        fo_sigmoid_cross_entropy(&loss)


def squared_error(prediction, target, double scale, gradient, bint flush=True):
    """The sum of (prediction - target)^2, in double; gradient = scale (prediction - target).

    prediction, target : of one shape and dtype, float32 or float64.
    gradient : of prediction's shape and dtype, written; or None.
    flush : subnormals count as zero.

    Raises TypeError and ValueError before anything is written.
    """
    cdef fo_loss loss
    cdef double total
    _check_array("prediction", prediction)
    _check_operand("prediction", prediction, _shape(prediction), False)
    _check_like("target", target, "prediction", prediction, False)
    if gradient is not None:
        _check_like("gradient", gradient, "prediction", prediction, True)
    _check_apart({"gradient": gradient}, {"prediction": prediction, "target": target})
    parts = np.empty((cnp.PyArray_SIZE(prediction) + FO_CHUNK - 1) // FO_CHUNK)
    loss = _loss(prediction, target, gradient, scale, flush)
    loss.losses = <double*>_data(parts)
    with nogil:
        total = fo_squared_error(&loss)
    return total
