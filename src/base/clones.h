/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_CLONES_H
#define DUSK_BASE_CLONES_H

/* CLONES in front of a function: the compiler makes it for several x86-64 levels and
 * the loader picks the best that the CPU has, so that a generic build still uses wide
 * vectors. Every clone gives the same bits, because the program is compiled without
 * contraction of multiply and add and without reordering of sums.
 *
 * For leaf functions with loops over elements; put it on functions without OpenMP
 * directives, and let them call only inline functions. Elsewhere than on x86-64 with
 * GNU indirect functions, and under sanitizers (whose start-up comes after the
 * loader's choice), it is empty. */

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) &&              \
    __GNUC__ >= 12 && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&         \
    !defined(__SANITIZE_THREAD__)
#define CLONES                                                                         \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

#endif
