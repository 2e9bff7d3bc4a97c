/* SPDX-License-Identifier: BSD-3-Clause */
/* Functions that wine 8 lacks: the parts of a complex number, passed in Visual C++'s calling convention. */

struct single_parts { float real, imaginary; };
struct parts { double real, imaginary; };

float own_crealf(struct single_parts z) { return z.real; }
float own_cimagf(struct single_parts z) { return z.imaginary; }
double own_creal(struct parts z) { return z.real; }
double own_cimag(struct parts z) { return z.imaginary; }
