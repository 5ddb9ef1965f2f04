/* SPDX-License-Identifier: MIT-0
 *
 * An image that runs nothing: a model's size is what linking it to this adds.
 */
#include "harness.h"

int pgh_main(void) {
    return PGH_EXIT_OK;
}
