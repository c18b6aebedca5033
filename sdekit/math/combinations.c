/* Linear combinations in one pass through memory, where PyTorch takes one for each term; to the bit the same as those.
   Built by sdekit/math/native.py, and never needed.

   The first product is rounded; each further one is added with a single rounding, as PyTorch's add with alpha does. */

#include <math.h>
#include <stdint.h>

/* `out` may be one of the terms, which a compiler need not fear: element i is read before it is written. */
#ifdef __clang__
#define LOOP(value)                                                                                                \
    _Pragma("clang loop vectorize(assume_safety)") for (int64_t i = 0; i < size; i++) out[i] = value;              \
    break
#else
#define LOOP(value)                                                                                                \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < size; i++) out[i] = value;                                        \
    break
#endif

#define T1 c0 *x0[i]
#define T2(fma) fma(c1, x1[i], T1)
#define T3(fma) fma(c2, x2[i], T2(fma))
#define T4(fma) fma(c3, x3[i], T3(fma))
#define T5(fma) fma(c4, x4[i], T4(fma))
#define T6(fma) fma(c5, x5[i], T5(fma))

/* out = sum_j c_j x_j over count terms, 1 to 6; c holds 6 numbers, which are cast to T. */
#define COMBINE(T, name, fma)                                                                                      \
    void sdekit_combination_##name(T *out, int64_t size, const double *c, int64_t count, const T *x0, const T *x1, \
                                   const T *x2, const T *x3, const T *x4, const T *x5)                             \
    {                                                                                                              \
        T c0 = (T)c[0], c1 = (T)c[1], c2 = (T)c[2], c3 = (T)c[3], c4 = (T)c[4], c5 = (T)c[5];                      \
        switch (count) {                                                                                           \
        case 1:                                                                                                    \
            LOOP(T1);                                                                                              \
        case 2:                                                                                                    \
            LOOP(T2(fma));                                                                                         \
        case 3:                                                                                                    \
            LOOP(T3(fma));                                                                                         \
        case 4:                                                                                                    \
            LOOP(T4(fma));                                                                                         \
        case 5:                                                                                                    \
            LOOP(T5(fma));                                                                                         \
        default:                                                                                                   \
            LOOP(T6(fma));                                                                                         \
        }                                                                                                          \
    }

COMBINE(double, 64, fma)
COMBINE(float, 32, fmaf)
