/* The normals of sdekit/math/philox.py and the sums of sdekit/brownian.py, bit for bit as PyTorch's operations give
   them there: built by sdekit/math/native.py, without contraction of a * b + c, and never needed. */

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 8
typedef uint64_t vector __attribute__((vector_size(64)));
static inline vector product(vector a, vector b) { return (vector)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 4
typedef uint64_t vector __attribute__((vector_size(32)));
static inline vector product(vector a, vector b) { return (vector)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#else
#define LANES 1
typedef uint64_t vector;
static inline vector product(vector a, vector b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
#endif
/* product: of the low 32 bits; the high ones may hold anything. */

#define BLOCKS 128 /* of four normals, drawn at once */
#define WIDTH (4 * BLOCKS)
#define LOW 0xFFFFFFFFu
#define TWO_52 0x4330000000000000u
#define SIGN 0x8000000000000000u

static inline double real(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

static inline uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

/* _box_muller for two words. */
static inline void box_muller(uint64_t even, uint64_t odd, double *first, double *second)
{
    double x = real(even | TWO_52) - 4503599627370495.5;
    uint64_t e = (bits_of(x) - 0x3FE6A09E667F3BCDu) & 0xFFF0000000000000u;
    double m = real(bits_of(x) - e);
    double q = (real(((e + 0x0010000000000000u) >> 52) | TWO_52) - 4503599627370529.0) * -0.69314718055994530942;
    double s = (m - 1.0) / (m + 1.0), p = s * s;
    double r = p * 0.14616449685043406;
    r = (r + 0.15331721600556042) * p;
    r = (r + 0.18182889125261723) * p;
    r = (r + 0.2222221113479508) * p;
    r = (r + 0.28571428625975487) * p;
    r = (r + 0.39999999999899505) * p;
    r = (r + 0.666666666666667) * p;
    r = (r + 2.0) * s;
    double radius = __builtin_sqrt(q - r);

    double v = real(((odd << 20) & 0x000FFFFFFFC00000u) | 0x3FF0000000200000u) - 1.5, w = v * v;
    double sine = w * 5.633933781537854e-08;
    sine = (sine + -3.59864335298231e-06) * w;
    sine = (sine + 0.0001604411507421909) * w;
    sine = (sine + -0.004681754132340976) * w;
    sine = (sine + 0.07969262624604301) * w;
    sine = (sine + -0.6459640975062443) * w;
    sine = (sine + 1.5707963267948966) * v;
    double cosine = w * -6.321256869628588e-09;
    cosine = (cosine + 4.710609726757823e-07) * w;
    cosine = (cosine + -2.520203677046026e-05) * w;
    cosine = (cosine + 0.0009192602741831558) * w;
    cosine = (cosine + -0.02086348076331121) * w;
    cosine = (cosine + 0.2536695079010467) * w;
    cosine = (cosine + -1.2337005501361697) * w;
    cosine = cosine + 1.0;

    *first = radius * real(bits_of(sine + cosine) ^ (odd << 63));
    *second = radius * real(bits_of(cosine - sine) ^ ((odd << 62) & SIGN));
}

/* What a lane draws: counter word 0, sample id, counter word 3. */
struct lanes {
    uint64_t block[BLOCKS], id[BLOCKS], tag[BLOCKS];
};

/* Philox4x32-10: z[q * BLOCKS + i] is normal q of lane i < n. */
static void draw(double *restrict z, int n, const struct lanes *restrict at, uint64_t seed)
{
    uint64_t words[4][BLOCKS];
    const vector none = {0};
    for (int i = 0; i < n; i += LANES) {
        vector c0, c1, c2, c3;
        uint64_t k0 = seed, k1 = seed >> 32;
        memcpy(&c0, at->block + i, sizeof c0);
        memcpy(&c1, at->id + i, sizeof c1);
        memcpy(&c3, at->tag + i, sizeof c3);
        c2 = c1 >> 32;
        for (int round = 0; round < 10; round++) {
            vector p0 = product(c0, none + 0xD2511F53u), p1 = product(c2, none + 0xCD9E8D57u);
            c0 = (p1 >> 32) ^ c1 ^ (none + k0);
            c2 = (p0 >> 32) ^ c3 ^ (none + k1);
            c1 = p1;
            c3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        c0 &= none + LOW;
        c2 &= none + LOW;
        memcpy(words[0] + i, &c0, sizeof c0);
        memcpy(words[1] + i, &c1, sizeof c1);
        memcpy(words[2] + i, &c2, sizeof c2);
        memcpy(words[3] + i, &c3, sizeof c3);
    }
    for (int pair = 0; pair < 2; pair++)
        for (int i = 0; i < n; i++)
            box_muller(words[2 * pair][i], words[2 * pair + 1][i], z + 2 * pair * BLOCKS + i,
                       z + (2 * pair + 1) * BLOCKS + i);
}

/* n lanes from `lane` on, for blocks from `first` on. */
static inline void set_lanes(struct lanes *at, int lane, int n, uint64_t first, uint64_t id, uint64_t tag)
{
    for (int i = 0; i < n; i++) {
        at->block[lane + i] = first + i;
        at->id[lane + i] = id;
        at->tag[lane + i] = tag;
    }
}

/* out[row * stride + column]: the normals of fill_normals; tags[row * tag_step] is c3. Short rows share a draw. */
#define FILL(name, type)                                                                                            \
    void name(type *out, int64_t rows, int64_t size, int64_t stride, uint64_t seed, const uint64_t *ids,            \
              const uint64_t *tags, int64_t tag_step)                                                               \
    {                                                                                                               \
        double z[WIDTH];                                                                                            \
        struct lanes at = {0};                                                                                        \
        for (int64_t start = 0; start < size; start += WIDTH) {                                                     \
            int columns = (int)(size - start < WIDTH ? size - start : WIDTH), n = (columns + 3) / 4;                \
            int together = BLOCKS / n;                                                                              \
            for (int64_t row = 0; row < rows; row += together) {                                                    \
                int count = (int)(rows - row < together ? rows - row : together);                                   \
                for (int r = 0; r < count; r++)                                                                     \
                    set_lanes(&at, r * n, n, start / 4, ids[row + r], tags[(row + r) * tag_step]);                  \
                draw(z, count * n, &at, seed);                                                                      \
                for (int r = 0; r < count; r++) {                                                                   \
                    type *to = out + (row + r) * stride + start;                                                    \
                    const double *from = z + r * n;                                                                 \
                    for (int i = 0; i < columns / 4; i++)                                                           \
                        for (int q = 0; q < 4; q++)                                                                 \
                            to[4 * i + q] = (type)from[q * BLOCKS + i];                                             \
                    for (int i = columns & ~3; i < columns; i++)                                                    \
                        to[i] = (type)from[(i & 3) * BLOCKS + (i >> 2)];                                            \
                }                                                                                                   \
            }                                                                                                       \
        }                                                                                                           \
    }

FILL(sdekit_fill_64, double)
FILL(sdekit_fill_32, float)

/* What `BrownianPath._combine` adds up. Node j of a row adds to the points point[k], ptr[j] <= k < ptr[j + 1], with
   weights (z, integral) each; its column moments * c + z is normal z of coordinate c.

   out: (points, moments, rows, size). scratch: points * moments * WIDTH numbers.
   nodes, weights: of row r from nodes + r * node_step and weights + r * weight_step on. */
#define ARGUMENTS                                                                                                   \
    double *out, double *scratch, int64_t points, int64_t rows, int64_t size, uint64_t seed, const uint64_t *ids,   \
        int64_t count, const uint64_t *nodes, int64_t node_step, const int64_t *ptr, const int64_t *point,          \
        const double *weights, int64_t weight_step

/* Coordinates 2 i and 2 i + 1 of lane i: normals 0, 1 and 2, 3. The first KEPT integrals of two are formed. */
#define PAIRS(name, KEPT)                                                                                           \
    void name(ARGUMENTS)                                                                                            \
    {                                                                                                               \
        double z[WIDTH];                                                                                            \
        struct lanes at = {0};                                                                                      \
        for (int64_t row = 0; row < rows; row++)                                                                    \
            for (int64_t start = 0; start < size; start += WIDTH / 2) {                                             \
                int left = (int)(size - start < WIDTH / 2 ? size - start : WIDTH / 2), n = (left + 1) / 2;          \
                int together = BLOCKS / n;                                                                          \
                memset(scratch, 0, points * KEPT * 2 * BLOCKS * sizeof(double));                                    \
                for (int64_t j = 0; j < count; j++) {                                                               \
                    int lane = (int)(j % together) * n;                                                             \
                    if (lane == 0) {                                                                                \
                        int drawn = (int)(count - j < together ? count - j : together);                             \
                        for (int i = 0; i < drawn; i++)                                                             \
                            set_lanes(&at, i * n, n, start / 2, ids[row], nodes[row * node_step + j + i]);          \
                        draw(z, drawn * n, &at, seed);                                                              \
                    }                                                                                               \
                    for (int64_t k = ptr[j]; k < ptr[j + 1]; k++)                                                   \
                        for (int q = 0; q < 2 * KEPT; q++) { /* half q / KEPT of the coordinates */                 \
                            double *restrict to = scratch + (point[k] * 2 * KEPT + q) * BLOCKS;                     \
                            const double *restrict a = z + 2 * (q / KEPT) * BLOCKS + lane, *restrict b = a + BLOCKS; \
                            const double *w = weights + row * weight_step + 2 * KEPT * k + q % KEPT;                \
                            double u = w[0], v = w[KEPT];                                                           \
                            for (int i = 0; i < n; i++)                                                             \
                                to[i] += a[i] * u + b[i] * v;                                                       \
                        }                                                                                           \
                }                                                                                                   \
                for (int64_t p = 0; p < points * KEPT; p++) {                                                       \
                    const double *from = scratch + (p / KEPT * 2 * KEPT + p % KEPT) * BLOCKS;                       \
                    double *to = out + (p * rows + row) * size + start;                                             \
                    for (int i = 0; i < left; i++)                                                                  \
                        to[i] = from[(i & 1) * KEPT * BLOCKS + (i >> 1)];                                           \
                }                                                                                                   \
            }                                                                                                       \
    }

PAIRS(sdekit_path_1, 1)
PAIRS(sdekit_path_2, 2)

/* Four coordinates take three lanes. */
void sdekit_path_3(ARGUMENTS)
{
    enum { COORDINATES = BLOCKS / 3 * 4 };
    double z[WIDTH], flat[WIDTH];
    struct lanes at = {0};
    for (int64_t row = 0; row < rows; row++)
        for (int64_t start = 0; start < size; start += COORDINATES) {
            int left = (int)(size - start < COORDINATES ? size - start : COORDINATES), n = (3 * left + 3) / 4;
            int together = BLOCKS / n;
            memset(scratch, 0, points * 3 * COORDINATES * sizeof(double));
            for (int64_t j = 0; j < count; j++) {
                int lane = (int)(j % together) * n;
                if (lane == 0) {
                    int drawn = (int)(count - j < together ? count - j : together);
                    for (int i = 0; i < drawn; i++)
                        set_lanes(&at, i * n, n, 3 * (start / 4), ids[row], nodes[row * node_step + j + i]);
                    draw(z, drawn * n, &at, seed);
                }
                for (int i = 0; i < n; i++)
                    for (int q = 0; q < 4; q++)
                        flat[4 * i + q] = z[q * BLOCKS + lane + i];
                for (int64_t k = ptr[j]; k < ptr[j + 1]; k++)
                    for (int integral = 0; integral < 3; integral++) {
                        double *restrict to = scratch + (point[k] * 3 + integral) * COORDINATES;
                        const double *w = weights + row * weight_step + 9 * k + integral;
                        for (int i = 0; i < left; i++)
                            to[i] += flat[3 * i] * w[0] + flat[3 * i + 1] * w[3] + flat[3 * i + 2] * w[6];
                    }
            }
            for (int64_t p = 0; p < points * 3; p++)
                memcpy(out + (p * rows + row) * size + start, scratch + p * COORDINATES, left * sizeof(double));
        }
}
