// One call as the kernels see it, and the walk over the sources of a target. Included inside a namespace per lane width.
// Letters: B samples, N nodes of a type, R relations leaving a type, Q entering it, O outputs, H heads, P heads padded to a power of two (the stride of everything that has one number a head), C width of a head.

enum Kind { CSR, DENSE, BROADCAST, WINDOW, GRID, BITMASK };
enum Mode { GAT, GATV2, DOT };

struct Type {
  int64_t n, R, Q, O;
  const int32_t *ptr;          // (B + 1) first node of each sample
  const char *value;           // (N, R, value heads, C) float or bfloat16
  const float *key, *query;    // gat: (N, R | Q, P); else (N, R | Q, H, C); gatv2 has no key
  float *out;                  // (N, O, H, C)
  const float *grad;           // (N, O, H, C)
  char *dvalue;
  float *dkey, *dquery;
  const int32_t *entering;     // (Q) relations by slot
};

struct Relation {
  int64_t kind, source, leaves, target, enters, p[4];
  const int32_t *a, *b;        // index tensors: csr ptr, sources · grid columns · bitmask words, start
  const float *edge;           // gat, dot: (E, P); gatv2: (E, H, C); or null
  float *dedge;
  bool linear;                 // dense, evaluated by sorted prefix sums
};

struct Problem {
  int64_t types, relations, merged, H, P, value_heads, C, mode, bf16, across, top_k, threads, B;
  float slope, dropout, scale;
  uint64_t seed;
  const float *att;            // (relations, H, C)
  float *datt;
  Type *type;
  Relation *relation;
  int64_t row() const { return value_heads * C; }
};

// A growing array that is never initialised.
template <class T> struct Buffer {
  T *data = nullptr;
  int64_t room = 0;
  ~Buffer() { free(data); }
  T *reserve(int64_t count) {  // keeps what is there
    if (count > room) {
      int64_t next = count + count / 2 + 64;
      data = (T *)realloc(data, next * sizeof(T));
      if (!data) abort();
      room = next;
    }
    return data;
  }
  T &operator[](int64_t i) { return data[i]; }
};

static inline int64_t most_sources(const Problem &p, const Relation &r, int64_t b, int64_t i) {
  switch (r.kind) {
    case CSR: return r.a[i + 1] - r.a[i];
    case BITMASK: return 32 * (int64_t)(r.b[i + 1] - r.b[i]);
    default: return p.type[r.source].ptr[b + 1] - p.type[r.source].ptr[b];
  }
}

// Sources of target i of sample b in ascending order (csr: as listed); -1 if a listed one is of another sample.
static inline int64_t sources_of(const Problem &p, const Relation &r, int64_t b, int64_t i, int32_t *out) {
  const int32_t *ptr = p.type[r.source].ptr;
  const int64_t first = ptr[b], n = ptr[b + 1] - first, here = i - p.type[r.target].ptr[b];
  int64_t count = 0;
  switch (r.kind) {
    case CSR: {
      const int32_t *from = r.b + r.a[i];
      count = r.a[i + 1] - r.a[i];
      bool apart = false;
      for (int64_t e = 0; e < count; e++) {
        out[e] = from[e];
        apart |= from[e] < first || from[e] >= first + n;
      }
      return apart ? -1 : count;
    }
    case DENSE:
    case BROADCAST:
      for (int64_t j = 0; j < n; j++)
        if (r.p[0] || j != here) out[count++] = first + j;
      return count;
    case WINDOW: {  // steps that stay in the sample: 0 <= here + s * step < n
      const int64_t step = r.p[2], room = n - 1 - here;
      const int64_t down = -(here / step), up = room >= 0 ? room / step : -((step - 1 - room) / step);
      const int64_t low = r.p[0] > down ? r.p[0] : down, high = r.p[1] < up ? r.p[1] : up;
      for (int64_t s = low; s <= high; s++)
        if (s || r.p[3]) out[count++] = first + here + s * step;
      return count;
    }
    case GRID: {
      const int64_t radius = r.p[0] < n ? r.p[0] : n;
      const int32_t columns = r.a[b], row = (int32_t)here / columns, column = (int32_t)here % columns;
      for (int64_t dr = -radius; dr <= radius; dr++)
        for (int64_t dc = -radius; dc <= radius; dc++) {
          const int64_t c = column + dc, j = (row + dr) * columns + c;
          const bool near = r.p[1] || (dr < 0 ? -dr : dr) + (dc < 0 ? -dc : dc) <= radius;
          if (near && (dr || dc || r.p[2]) && row + dr >= 0 && c >= 0 && c < columns && j < n) out[count++] = first + j;
        }
      return count;
    }
    default:
      for (int64_t w = r.b[i]; w < r.b[i + 1]; w++)
        for (uint32_t bits = (uint32_t)r.a[w]; bits; bits &= bits - 1) {
          const int64_t j = 32 * (w - r.b[i]) + __builtin_ctz(bits);
          if (j >= n) return -1;
          out[count++] = first + j;
        }
      return count;
  }
}

// The counter-based random numbers of attention dropout; the same chain as in reference.py.
static inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// factor (n, P): 0 with probability `dropout`, else 1 / (1 - dropout).
static inline void dropout_factors(const Problem &p, int64_t relation, int64_t target, int64_t n, float *factor) {
  const uint32_t base = mix(mix((uint32_t)p.seed ^ (uint32_t)(relation * 0x9E3779B9u)) ^ (uint32_t)(p.seed >> 32));
  const uint32_t each = mix(base ^ (uint32_t)target);
  const double limit = (double)p.dropout;
  const float scale = 1.0f / (1.0f - p.dropout);
  for (int64_t e = 0; e < n; e++)
    for (int64_t h = 0; h < p.H; h++)
      factor[e * p.P + h] = mix(each ^ (uint32_t)(e * p.H + h)) / 4294967296.0 >= limit ? scale : 0.0f;
}
