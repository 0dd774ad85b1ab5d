/* Every kernel, one line each: its buffers and its coefficients, by name.
 *
 * IN(x) is a buffer that is only read, IO(x) one that is written, COEF(x) a scalar. The kernel finds
 * them under these names, the binding fills them by name, and the NumPy twin in fastopt/reference/
 * has the same names in the same order (a test compares them). p is the parameter and g the gradient
 * as the stages have left it; what else a rule lists is its state.
 *
 * `one` is always 1: multiplying by a coefficient that the compiler does not know is how a subnormal
 * is flushed before a comparison or a select, which would pass it on. */
#ifndef FASTOPT_REGISTRY_H
#define FASTOPT_REGISTRY_H

/* Stages, in the order in which they run around the rule. */
#define FO_scale(IN, IO, COEF) IO(out) IN(g) COEF(scale)
#define FO_clamp(IN, IO, COEF) IO(g) COEF(one) COEF(bound)
#define FO_l1(IN, IO, COEF) IO(g) IN(p) COEF(one) COEF(l1)
#define FO_l2(IN, IO, COEF) IO(g) IN(p) COEF(l2)
#define FO_decay(IN, IO, COEF) IO(p) COEF(keep)
#define FO_prox_l1(IN, IO, COEF) IO(p) COEF(one) COEF(threshold)
#define FO_lookahead(IN, IO, COEF) IO(p) IO(slow) COEF(turn) COEF(alpha)
#define FO_bounds(IN, IO, COEF) IO(p) COEF(one) COEF(low) COEF(high) COEF(low_single) COEF(high_single)
#define FO_average(IN, IO, COEF) IO(average) IN(p) COEF(decay) COEF(gain)

/* Passes of their own, outside the step, from stages like these: to other points and back, and means. */
#define FO_sign(IN, IO, COEF) IO(g) COEF(one)
#define FO_perturb(IN, IO, COEF) IO(p) IN(g) COEF(scale)
#define FO_perturb_adaptive(IN, IO, COEF) IO(p) IN(g) COEF(scale)
#define FO_mean(IN, IO, COEF) IO(average) IN(g) COEF(gain)

/* Update rules. */
#define FO_sgd(IN, IO, COEF) IO(p) IN(g) COEF(step)
#define FO_momentum(IN, IO, COEF) IO(p) IN(g) IO(b) COEF(mu) COEF(gain) COEF(step)
#define FO_nesterov(IN, IO, COEF) IO(p) IN(g) IO(b) COEF(mu) COEF(gain) COEF(step)
#define FO_adagrad(IN, IO, COEF) IO(p) IN(g) IO(s) COEF(eps_in) COEF(eps_out) COEF(step)
#define FO_rmsprop(IN, IO, COEF) \
    IO(p) IN(g) IO(v) COEF(rho) COEF(gain) COEF(eps_in) COEF(eps_out) COEF(step)
#define FO_rmsprop_momentum(IN, IO, COEF) \
    IO(p) IN(g) IO(v) IO(b) COEF(rho) COEF(gain) COEF(eps_in) COEF(eps_out) COEF(mu) COEF(step)
#define FO_rmsprop_centered(IN, IO, COEF) \
    IO(p) IN(g) IO(v) IO(m) COEF(rho) COEF(gain) COEF(eps_in) COEF(eps_out) COEF(step)
#define FO_rmsprop_centered_momentum(IN, IO, COEF) \
    IO(p) IN(g) IO(v) IO(m) IO(b) \
    COEF(rho) COEF(gain) COEF(eps_in) COEF(eps_out) COEF(mu) COEF(step)
#define FO_adam(IN, IO, COEF) \
    IO(p) IN(g) IO(m) IO(v) \
    COEF(beta1) COEF(gain1) COEF(beta2) COEF(gain2) COEF(unbias) COEF(eps) COEF(step)
#define FO_amsgrad(IN, IO, COEF) \
    IO(p) IN(g) IO(m) IO(v) IO(v_max) \
    COEF(beta1) COEF(gain1) COEF(beta2) COEF(gain2) COEF(one) COEF(unbias) COEF(eps) COEF(step)
#define FO_nadam(IN, IO, COEF) \
    IO(p) IN(g) IO(m) IO(v) \
    COEF(beta1) COEF(gain1) COEF(beta2) COEF(gain2) COEF(unbias) COEF(eps) COEF(step_m) COEF(step_g)

#define FO_adamax(IN, IO, COEF) \
    IO(p) IN(g) IO(m) IO(u) COEF(beta1) COEF(gain1) COEF(beta2) COEF(eps_in) COEF(eps_out) COEF(step)
#define FO_adadelta(IN, IO, COEF) IO(p) IN(g) IO(v) IO(u) COEF(rho) COEF(gain) COEF(eps) COEF(step)
#define FO_rprop(IN, IO, COEF) \
    IO(p) IN(g) IO(prev) IO(size) COEF(one) COEF(minus) COEF(plus) COEF(low) COEF(high)
#define FO_asgd(IN, IO, COEF) IO(p) IN(g) IO(ax) COEF(keep) COEF(step) COEF(decay) COEF(gain)
#define FO_sign_momentum(IN, IO, COEF) \
    IO(p) IN(g) IO(m) COEF(mix_m) COEF(mix_g) COEF(beta) COEF(gain) COEF(step)

/* Kernels of rules of several walks: only the last one's writes p. u is scratch, of one chunk; r, c and a have an element for
 * each row or column, and are spread out over the elements. */
#define FO_lamb_moments(IN, IO, COEF) \
    IN(p) IN(g) IO(m) IO(v) IO(u) \
    COEF(beta1) COEF(gain1) COEF(beta2) COEF(gain2) COEF(correct) COEF(unbias) COEF(eps) COEF(decay)
#define FO_lamb(IN, IO, COEF) \
    IO(p) IN(m) IN(v) COEF(correct) COEF(unbias) COEF(eps) COEF(decay) COEF(step)
#define FO_adafactor_scaled(IN, IO, COEF) IN(g) IN(c) IN(a) IO(u) COEF(floor_v)
#define FO_adafactor(IN, IO, COEF) IO(p) IN(g) IN(c) IN(a) COEF(floor_v) COEF(step)
#define FO_adafactor_momentum(IN, IO, COEF) \
    IO(p) IN(g) IN(c) IN(a) IO(m) COEF(floor_v) COEF(beta) COEF(gain_m) COEF(step)
#define FO_adafactor_unfactored_moment(IN, IO, COEF) IN(g) IO(v) IO(u) COEF(keep) COEF(gain) COEF(eps_add) COEF(floor_v)
#define FO_adafactor_unfactored(IN, IO, COEF) IO(p) IN(g) IN(v) COEF(floor_v) COEF(step)
#define FO_adafactor_unfactored_momentum(IN, IO, COEF) \
    IO(p) IN(g) IN(v) IO(m) COEF(floor_v) COEF(beta) COEF(gain_m) COEF(step)
#define FO_prodigy_moments(IN, IO, COEF) \
    IN(g) IO(m) IO(v) IO(s) COEF(beta1) COEF(gain1) COEF(beta2) COEF(gain2) COEF(beta3) COEF(gain3)
#define FO_prodigy(IN, IO, COEF) IO(p) IN(m) IN(v) COEF(shrink) COEF(eps_d) COEF(step)

#define FO_STAGES_BEFORE(X) X(scale) X(clamp) X(l1) X(l2) X(decay)
/* Rules of one walk: their buffers begin with IO(p) IN(g), so that what comes before them can be done within their loop. */
#define FO_PLAIN_RULES(X) \
    X(sgd) X(momentum) X(nesterov) X(adagrad) X(rmsprop) X(rmsprop_momentum) \
    X(rmsprop_centered) X(rmsprop_centered_momentum) X(adam) X(amsgrad) X(nadam) X(adamax) \
    X(adadelta) X(rprop) X(asgd) X(sign_momentum)
#define FO_RULES_OF_PASSES(X) \
    X(lamb_moments) X(lamb) X(adafactor_scaled) X(adafactor) X(adafactor_momentum) X(adafactor_unfactored_moment) \
    X(adafactor_unfactored) X(adafactor_unfactored_momentum) X(prodigy_moments) X(prodigy)
#define FO_RULES(X) FO_PLAIN_RULES(X) FO_RULES_OF_PASSES(X)
/* At most steps this one does nothing, and is not to ask for its memory then. */
#define FO_STAGES_AT_TIMES(X) X(lookahead)
#define FO_STAGES_AFTER(X) X(prox_l1) FO_STAGES_AT_TIMES(X) X(bounds) X(average)
#define FO_PASSES(X) X(sign) X(perturb) X(perturb_adaptive) X(mean)
#define FO_BESIDE_PLAIN_RULES(X) FO_STAGES_BEFORE(X) FO_RULES_OF_PASSES(X) X(prox_l1) X(bounds) X(average) FO_PASSES(X)
#define FO_KERNELS(X) FO_STAGES_BEFORE(X) FO_RULES(X) FO_STAGES_AFTER(X) FO_PASSES(X)

/* What a norm is made of; see reductions.h. */
#define FO_REDUCTIONS(X) X(sum_squares) X(sum_abs) X(max_abs)

/* Sums over several buffers of a walk. */
#define FO_dot_difference(IN) IN(g) IN(a) IN(b)
#define FO_SUMS(X) X(dot_difference)

/* Functions of registers and numbers, between walks; see scalars.c. `go` of 0 takes the step back. */
#define FO_trust(IN, OUT) \
    IN(pp) IN(uu) IN(lr) IN(largest) IN(eps_norm) IN(low) IN(high) OUT(step)
#define FO_adafactor_step(IN, OUT) \
    IN(pp) IN(uu) IN(elements) IN(rate) IN(eps2) IN(relative) IN(clipping) OUT(step)
#define FO_prodigy_begin(IN, OUT) \
    IN(d) IN(d0) IN(rate) IN(beta1) IN(beta2) IN(safeguard) OUT(gain1) OUT(gain2) OUT(gain3) OUT(dlr)
#define FO_prodigy_estimate(IN, OUT) \
    IN(d) IN(num) IN(d_max) IN(dot) IN(den) IN(d0) IN(dlr) IN(beta3) IN(d_coef) IN(growth) IN(by_max) IN(decay) \
    IN(eps) OUT(num) OUT(d_max) OUT(d) OUT(go) OUT(step) OUT(shrink) OUT(eps_d)
#define FO_polyak(IN, OUT) \
    IN(gg) IN(loss) IN(f_min) IN(scaling) IN(eps) IN(largest) IN(positive) OUT(step)
#define FO_SCALARS(X) X(trust) X(adafactor_step) X(prodigy_begin) X(prodigy_estimate) X(polyak)

#endif
