/* The sums over slopes that a Runge-Kutta step is made of, in one pass through memory, where NumPy's operations take one
   for each slope and more; to the bit the same as those. Built by sdekit/math/native.py, and never needed.

   States are (rows, width). Slope j begins j * stride after the first. Products are rounded before they are added, and
   the sums run in the slopes' order. */

#include <math.h>
#include <stdint.h>

#define BLOCK 256

#define LARGER(a, b) ((a) > (b) || (a) != (a) ? (a) : (b)) /* NaN where one is */

/* out = sum_j weights_j slopes_j, n <= BLOCK of each. */
#define SUM(T)                                                                                                     \
    for (int64_t i = 0; i < n; i++)                                                                                \
        sum[i] = weights[0] * slopes[at + i];                                                                      \
    for (int64_t j = 1; j < count; j++) {                                                                          \
        const T *k = slopes + j * stride + at, w = weights[j];                                                     \
        for (int64_t i = 0; i < n; i++)                                                                            \
            sum[i] += w * k[i];                                                                                    \
    }

/* What is done with the sums of whole rows, for a width that is known as this is compiled. */
#define FINISH(T, name)                                                                                            \
    static inline __attribute__((always_inline)) void finish_##name(                                               \
        T *restrict out, const T *restrict base, const T *restrict sum, const double *restrict gains,              \
        const double *restrict ratios, int64_t rows, int64_t width)                                                \
    {                                                                                                              \
        for (int64_t r = 0; r < rows; r++) {                                                                       \
            T gain = (T)gains[r], ratio = ratios ? (T)ratios[r] : (T)1;                                            \
            for (int64_t c = 0; c < width; c++) {                                                                  \
                T v = sum[r * width + c] * gain + base[r * width + c];                                             \
                out[r * width + c] = ratios ? v * ratio : v;                                                       \
            }                                                                                                      \
        }                                                                                                          \
    }

/* out = (base + gain sum) ratio, with gain and ratio of each row, cast to T; without ratios where these are NULL. */
#define STAGE(T, name)                                                                                             \
    FINISH(T, name)                                                                                                \
    void sdekit_stage_##name(T *restrict out, const T *restrict base, const T *restrict slopes, int64_t stride,    \
                             const T *restrict weights, int64_t count, const double *restrict gains,               \
                             const double *restrict ratios, int64_t rows, int64_t width)                           \
    {                                                                                                              \
        T sum[BLOCK];                                                                                              \
        if (width > BLOCK) {                                                                                       \
            for (int64_t r = 0; r < rows; r++)                                                                     \
                for (int64_t c = 0; c < width; c += BLOCK) {                                                       \
                    int64_t at = r * width + c, n = width - c < BLOCK ? width - c : BLOCK;                         \
                    SUM(T)                                                                                         \
                    finish_##name(out + at, base + at, sum, gains + r, ratios ? ratios + r : ratios, 1, n);        \
                }                                                                                                  \
            return;                                                                                                \
        }                                                                                                          \
        int64_t step = width ? BLOCK / width : rows;                                                               \
        for (int64_t r = 0; r < rows; r += step) {                                                                 \
            int64_t some = rows - r < step ? rows - r : step, at = r * width, n = some * width;                    \
            const double *ratio = ratios ? ratios + r : ratios;                                                    \
            SUM(T)                                                                                                 \
            if (width == 1)                                                                                        \
                finish_##name(out + at, base + at, sum, gains + r, ratio, some, 1);                                \
            else if (width == 2)                                                                                   \
                finish_##name(out + at, base + at, sum, gains + r, ratio, some, 2);                                \
            else                                                                                                   \
                finish_##name(out + at, base + at, sum, gains + r, ratio, some, width);                            \
        }                                                                                                          \
    }

/* out = sum, and over max(|base|, |new|) + floor where floor >= 0; n elements. */
#define ERROR(T, name, absolute)                                                                                   \
    void sdekit_error_##name(T *restrict out, const T *restrict base, const T *restrict new,                       \
                             const T *restrict slopes, int64_t stride, const T *restrict weights, int64_t count,   \
                             double least, int64_t size)                                                           \
    {                                                                                                              \
        T sum[BLOCK], floor = (T)least;                                                                            \
        for (int64_t at = 0; at < size; at += BLOCK) {                                                             \
            int64_t n = size - at < BLOCK ? size - at : BLOCK;                                                     \
            SUM(T)                                                                                                 \
            if (least >= 0)                                                                                        \
                for (int64_t i = 0; i < n; i++) {                                                                  \
                    T a = absolute(base[at + i]), b = absolute(new[at + i]);                                       \
                    out[at + i] = sum[i] / (LARGER(a, b) + floor);                                                 \
                }                                                                                                  \
            else                                                                                                   \
                for (int64_t i = 0; i < n; i++)                                                                    \
                    out[at + i] = sum[i];                                                                          \
        }                                                                                                          \
    }

/* out = first a + second b, with the numbers of each row, cast to T. */
#define COMBINE(T, name)                                                                                           \
    static inline __attribute__((always_inline)) void combine_##name(                                              \
        T *restrict out, const T *restrict a, const T *restrict b, const double *restrict first,                   \
        const double *restrict second, int64_t rows, int64_t width)                                                \
    {                                                                                                              \
        for (int64_t r = 0; r < rows; r++) {                                                                       \
            T p = (T)first[r], q = (T)second[r];                                                                   \
            for (int64_t c = 0; c < width; c++)                                                                    \
                out[r * width + c] = a[r * width + c] * p + b[r * width + c] * q;                                  \
        }                                                                                                          \
    }                                                                                                              \
    void sdekit_combine_##name(T *restrict out, const T *restrict a, const T *restrict b,                          \
                               const double *restrict first, const double *restrict second, int64_t rows,          \
                               int64_t width)                                                                      \
    {                                                                                                              \
        if (width == 1)                                                                                            \
            combine_##name(out, a, b, first, second, rows, 1);                                                     \
        else if (width == 2)                                                                                       \
            combine_##name(out, a, b, first, second, rows, 2);                                                     \
        else                                                                                                       \
            combine_##name(out, a, b, first, second, rows, width);                                                 \
    }

STAGE(double, 64)
STAGE(float, 32)
ERROR(double, 64, fabs)
ERROR(float, 32, fabsf)
COMBINE(double, 64)
COMBINE(float, 32)
