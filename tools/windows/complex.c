/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of a complex number, which wine 8 does not tell; passed as Visual C++ passes them. */

struct single_parts { float real, imaginary; };
struct parts { double real, imaginary; };

float own_crealf(struct single_parts z) { return z.real; }
float own_cimagf(struct single_parts z) { return z.imaginary; }
double own_creal(struct parts z) { return z.real; }
double own_cimag(struct parts z) { return z.imaginary; }
