/* Every family of rules, in the order of the registry. A template like each of them: see rules/sgd.h. */
#include "kernels/rules/sgd.h"
#include "kernels/rules/adagrad.h"
#include "kernels/rules/rmsprop.h"
#include "kernels/rules/adam.h"
#include "kernels/rules/lion.h"
#include "kernels/rules/lamb.h"
#include "kernels/rules/adafactor.h"
#include "kernels/rules/prodigy.h"
