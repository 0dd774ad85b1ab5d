/* Every family of rules, in the order of the registry. A template like each of them: see rules/sgd.h. */
#include "kernels/rules/sgd.h"
#include "kernels/rules/adagrad.h"
#include "kernels/rules/rmsprop.h"
#include "kernels/rules/adam.h"
