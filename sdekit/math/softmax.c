/* The softmax of sdekit/targets/expanded.py in one pass through memory, where PyTorch's operations take six; to rounding
   the same. Built by sdekit/math/native.py, and never needed.

   Of each sample the logits are v_k = z_k scale_k + bias_k + squares_k norm, or z_k shared + bias_k where scale is NULL,
   and the result is max(e^(v_k - max v), e^least) over its sum, in place of z; NaN where one of them is. */

#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FMA(a, b, c) __builtin_fma(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

#define LANES 16

/* e^x for -708 <= x <= 0: 2^n e^r, |r| <= log(2) / 2, by the Taylor series of degree 12 (3e-16). */
static inline double exponential(double x)
{
    double shifted = FMA(x, 1.4426950408889634, 6755399441055744.0), n = shifted - 6755399441055744.0;
    double r = FMA(n, -0x1.abc9e3b39803fp-56, FMA(n, -0x1.62e42fefa39efp-1, x));
    double p = 1.0 / 479001600;
    p = FMA(p, r, 1.0 / 39916800);
    p = FMA(p, r, 1.0 / 3628800);
    p = FMA(p, r, 1.0 / 362880);
    p = FMA(p, r, 1.0 / 40320);
    p = FMA(p, r, 1.0 / 5040);
    p = FMA(p, r, 1.0 / 720);
    p = FMA(p, r, 1.0 / 120);
    p = FMA(p, r, 1.0 / 24);
    p = FMA(p, r, 1.0 / 6);
    p = FMA(p, r, 0.5);
    p = FMA(p, r, 1.0);
    p = FMA(p, r, 1.0);
    uint64_t bits;
    double power;
    memcpy(&bits, &shifted, 8);
    bits = (bits << 52) + 0x3FF0000000000000u;
    memcpy(&power, &bits, 8);
    return p * power; /* NaN where x is */
}

/* Of a NaN and a number the second. */
static inline double larger(double a, double b) { return a > b ? a : b; }

/* The logits of n <= LANES components of one sample. */
#define LOGITS(n)                                                                                                  \
    for (int i = 0; i < (n); i++) {                                                                                \
        double v = scale ? FMA(scale[k + i], z[k + i], FMA(squares[k + i], norm, bias[k + i]))                     \
                         : FMA(shared, z[k + i], bias[k + i]);                                                     \
        z[k + i] = v;                                                                                              \
        top[i] = larger(v, top[i]);                                                                                \
    }

#define POWERS(n)                                                                                                  \
    for (int i = 0; i < (n); i++) {                                                                                \
        double e = exponential(larger(least, z[k + i] - most));                                                    \
        z[k + i] = e;                                                                                              \
        sum[i] += e;                                                                                               \
    }

/* z (rows, K). */
void sdekit_softmax_rows(double *restrict z, const double *restrict bias, const double *restrict scale,
                         const double *restrict squares, const double *restrict norms, double shared,
                         int64_t rows, int64_t K, double least)
{
    for (int64_t row = 0; row < rows; row++, z += K) {
        double top[LANES], sum[LANES] = {0}, norm = scale ? norms[row] : 0.0;
        int64_t k;
        for (int i = 0; i < LANES; i++)
            top[i] = -__builtin_inf();
        for (k = 0; k + LANES <= K; k += LANES)
            LOGITS(LANES)
        LOGITS(K - k)
        double most = top[0];
        for (int i = 1; i < LANES; i++)
            most = larger(top[i], most);
        for (k = 0; k + LANES <= K; k += LANES)
            POWERS(LANES)
        POWERS(K - k)
        double total = 0;
        for (int i = 0; i < LANES; i++)
            total += sum[i];
        total = 1 / total;
        for (k = 0; k < K; k++)
            z[k] *= total;
    }
}

/* n <= LANES columns of z, whose rows are `stride` apart. */
static inline __attribute__((always_inline)) void
columns(double *restrict z, const double *restrict bias, const double *restrict scale, const double *restrict squares,
        const double *restrict norms, double shared, int n, int64_t stride, int64_t K, double least)
{
    double top[LANES], sum[LANES], norm[LANES];
    for (int i = 0; i < n; i++) {
        top[i] = -__builtin_inf();
        sum[i] = 0.0;
        norm[i] = scale ? norms[i] : 0.0;
    }
    for (int64_t k = 0; k < K; k++) {
        double *at = z + k * stride, a = scale ? scale[k] : shared, b = scale ? squares[k] : 0.0, c = bias[k];
        for (int i = 0; i < n; i++) {
            double v = FMA(a, at[i], FMA(b, norm[i], c));
            at[i] = v;
            top[i] = larger(v, top[i]);
        }
    }
    for (int64_t k = 0; k < K; k++) {
        double *at = z + k * stride;
        for (int i = 0; i < n; i++) {
            double e = exponential(larger(least, at[i] - top[i]));
            at[i] = e;
            sum[i] += e;
        }
    }
    for (int i = 0; i < n; i++)
        sum[i] = 1 / sum[i];
    for (int64_t k = 0; k < K; k++)
        for (int i = 0; i < n; i++)
            z[k * stride + i] *= sum[i];
}

/* z (K, count), its rows `stride` apart. */
void sdekit_softmax_columns(double *restrict z, const double *restrict bias, const double *restrict scale,
                            const double *restrict squares, const double *restrict norms, double shared, int64_t count,
                            int64_t stride, int64_t K, double least)
{
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES)
        columns(z + at, bias, scale, squares, scale ? norms + at : norms, shared, LANES, stride, K, least);
    if (at < count)
        columns(z + at, bias, scale, squares, scale ? norms + at : norms, shared, (int)(count - at), stride, K, least);
}
