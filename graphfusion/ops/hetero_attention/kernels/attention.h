// Forward and backward over listed and enumerated pairs. Included inside a namespace per lane width.
// Forward: every target row is independent. Nothing is saved; weights are made again in the backward pass, from scores
// up (from a saved log-sum-exp they would carry its rounding). Backward: targets first (weights and score gradients of their edges), then
// sources (the same edges, turned over by a counting sort). Every output row is written by one thread in one order, so
// results have the same bits for any number of threads.

#define SLACK 16  // floats that a vector step may write after the end of an array

struct Scratch {
  Buffer<int32_t> source;
  Buffer<const char *> rows, keys;
  Buffer<const float *> extra;
  Buffer<float> w, z, gain, factor, temp;
  Buffer<int64_t> segment;
};

// Scores (n, P) of the edges of one (target, relation), before softmax; `gat`: their slope by the sum inside, or null.
template <class T, int P>
static inline void scores(const Problem &p, int64_t relation, int64_t i, const int32_t *source, int64_t n, const char *const *rows, const char **keys, int64_t first, float *w, float *gain, Buffer<float> &temp) {
  const Relation &r = p.relation[relation];
  const Type &from = p.type[r.source], &to = p.type[r.target];
  if (p.mode == GAT) {
    typedef Heads<P> V;
    const auto q = V::get(to.query + (i * to.Q + r.enters) * P);
    const float *key = from.key + r.leaves * P, *edge = r.edge ? r.edge + first * P : nullptr;
    const int64_t stride = from.R * P;
    for (int64_t e = 0; e < n; e++) {
      auto x = V::get(key + source[e] * stride) + q;
      if (edge) x += V::get(edge + e * P);
      const auto one = typename V::f{} + 1.0f;
      const auto slope = x > 0.0f ? one : one * p.slope;
      V::put(w + e * P, x * slope);
      if (gain) V::put(gain + e * P, slope);
    }
  } else {
    if (p.P != p.H) memset(w, 0, n * P * sizeof(float));
    const int64_t width = p.H * p.C;
    const float *q = to.query + (i * to.Q + r.enters) * width;
    if (p.mode == GATV2) {
      V2Score<T> s{(const T *const *)rows, n, q, p.att + relation * width, r.edge ? r.edge + first * width : nullptr, p.slope, w, P, p.H, p.C};
      over_heads(s, p.H, p.C);
    } else {
      for (int64_t e = 0; e < n; e++) keys[e] = (const char *)(from.key + (source[e] * from.R + r.leaves) * width);
      keys[n] = keys[n ? n - 1 : 0];
      row_dots<float>(q, (const float *const *)keys, n, w, P, p.H, p.C);
      for (int64_t k = 0; k < n * P; k++) w[k] = w[k] * p.scale + (r.edge ? r.edge[first * P + k] : 0.0f);
    }
  }
  if (p.top_k && n > p.top_k) {  // of each head the top_k largest stay; equal ones go to the earlier edge
    float *sorted = temp.reserve(n);
    for (int64_t h = 0; h < p.H; h++) {
      for (int64_t e = 0; e < n; e++) sorted[e] = w[e * P + h];
      const float limit = kth_largest(sorted, n, p.top_k);
      int64_t ties = p.top_k;
      for (int64_t e = 0; e < n; e++) ties -= w[e * P + h] > limit;
      for (int64_t e = 0; e < n; e++) {
        float &x = w[e * P + h];
        if (x < limit || (x == limit && ties-- <= 0)) x = -INFINITY;
      }
    }
  }
}

// Scores (n, P) → weights that sum to 1 for each head. Up to a vector after the end is overwritten.
template <int P> static inline void softmax(float *w, int64_t n) {
  typedef Heads<P> V;
  const int64_t end = close_steps<P>(w, n, -INFINITY);
  auto larger = [](auto a, auto b) { return a > b ? a : b; };
  auto plus = [](auto a, auto b) { return a + b; };
  auto top = V::load_k(w);
  for (int64_t k = V::K; k < end; k += V::K) top = larger(top, V::load_k(w + k));
  top = V::fold(top, larger);
  auto total = top - top;
  for (int64_t k = 0; k < end; k += V::K) {
    const auto x = V::exp(V::load_k(w + k) - top);
    V::store_k(w + k, x);
    total += x;
  }
  total = V::fold(total, plus);
  const auto scale = 1.0f / total;
  for (int64_t k = 0; k < end; k += V::K) V::store_k(w + k, V::load_k(w + k) * scale);
}
// z ← w (z − Σ w z), the gradient through a softmax over n edges. Up to a vector after the end is overwritten.
template <int P> static inline void softmax_gradient(float *w, float *z, int64_t n) {
  typedef Heads<P> V;
  close_steps<P>(w, n, 0.0f);
  const int64_t end = close_steps<P>(z, n, 0.0f);
  auto mean = V::load_k(w) * V::load_k(z);
  for (int64_t k = V::K; k < end; k += V::K) mean += V::load_k(w + k) * V::load_k(z + k);
  mean = V::fold(mean, [](auto a, auto b) { return a + b; });
  for (int64_t k = 0; k < end; k += V::K) V::store_k(z + k, V::load_k(w + k) * (V::load_k(z + k) - mean));
}
// d ← d · gain; sum (P) of the products over n edges. Up to a vector after the end is overwritten.
template <int P> static inline void scaled_sum(float *d, const float *gain, int64_t n, float *sum) {
  typedef Heads<P> V;
  const int64_t whole = n * P / V::K * V::K;
  float total[V::K] = {0};
  auto part = V::load_k(total);
  for (int64_t k = 0; k < whole; k += V::K) {
    const auto x = V::load_k(d + k) * V::load_k(gain + k);
    V::store_k(d + k, x);
    part += x;
  }
  V::store_k(total, V::fold(part, [](auto a, auto b) { return a + b; }));
  for (int64_t k = whole; k < n * P; k++) {
    d[k] *= gain[k];
    total[k % P] += d[k];
  }
  for (int h = 0; h < P; h++) sum[h] = total[h];
}

// Lists the sources of target i over its relations: s.source and s.segment (Q + 1). False if an edge leaves its sample.
static inline bool gather(const Problem &p, Scratch &s, int64_t b, int64_t t, int64_t i) {
  const Type &to = p.type[t];
  int64_t total = 0;
  s.segment.reserve(to.Q + 1)[0] = 0;
  for (int64_t q = 0; q < to.Q; q++) {
    const Relation &r = p.relation[to.entering[q]];
    if (!r.linear) {
      s.source.reserve(total + most_sources(p, r, b, i));
      const int64_t n = sources_of(p, r, b, i, s.source.data + total);
      if (n < 0) return false;
      total += n;
    }
    s.segment[q + 1] = total;
  }
  return true;
}
template <class T>
static inline void value_rows(const Problem &p, const Relation &r, const int32_t *source, int64_t n, const char **rows) {
  const Type &from = p.type[r.source];
  const int64_t row = p.row();
  for (int64_t e = 0; e < n; e++) rows[e] = (const char *)((const T *)from.value + (source[e] * from.R + r.leaves) * row);
}

template <class T, int P> static bool forward_row(const Problem &p, Scratch &s, int64_t b, int64_t t, int64_t i) {
  const Type &to = p.type[t];
  if (!gather(p, s, b, t, i)) return false;
  const int64_t total = s.segment[to.Q], width = p.H * p.C;
  float *w = s.w.reserve(total * P + 2 * SLACK);
  const char **rows = s.rows.reserve(total + 1), **keys = s.keys.reserve(total + 1);
  for (int64_t q = 0; q < to.Q; q++) {
    const int64_t relation = to.entering[q], e0 = s.segment[q], n = s.segment[q + 1] - e0;
    const Relation &r = p.relation[relation];
    if (!n) continue;
    value_rows<T>(p, r, s.source.data + e0, n, rows + e0);
    rows[e0 + n] = rows[e0 + n - 1];
    scores<T, P>(p, relation, i, s.source.data + e0, n, rows + e0, keys, r.kind == CSR ? r.a[i] : 0, w + e0 * P, nullptr, s.temp);
    if (!p.across) softmax<P>(w + e0 * P, n);
  }
  if (p.across && total) softmax<P>(w, total);
  if (p.dropout > 0.0f)
    for (int64_t q = 0; q < to.Q; q++) {
      const int64_t e0 = s.segment[q], n = s.segment[q + 1] - e0;
      float *f = s.factor.reserve(n * P);
      dropout_factors(p, to.entering[q], i, n, f);
      for (int64_t k = 0; k < n * P; k++) w[e0 * P + k] = p.P == p.H || k % P < p.H ? w[e0 * P + k] * f[k] : 0.0f;
    }
  const int64_t outputs = to.O;
  for (int64_t o = 0; o < outputs; o++) {
    const int64_t e0 = p.merged ? 0 : s.segment[o], n = (p.merged ? total : s.segment[o + 1]) - e0;
    float *out = to.out + (i * to.O + o) * width;
    if (!n) memset(out, 0, width * sizeof(float));
    else {
      if (p.value_heads == p.H) weighted_sum<T>((const T *const *)rows + e0, nullptr, n, w + e0 * P, P, p.H, p.C, out);
      else shared_sums<(W > 8 ? 8 : 4), T>((const T *const *)rows + e0, n, w + e0 * P, P, 0, p.H, p.C, out);
    }
  }
  return true;
}

struct Task { int64_t sample, type, first, last; };

template <class T, int P> static int forward(const Problem &p) {
  const int64_t CHUNK = 256;
  int64_t count = 0;
  for (int64_t b = 0; b < p.B; b++)
    for (int64_t t = 0; t < p.types; t++) count += (p.type[t].ptr[b + 1] - p.type[t].ptr[b] + CHUNK - 1) / CHUNK;
  Buffer<Task> task;
  task.reserve(count + 1);
  count = 0;
  for (int64_t b = 0; b < p.B; b++)
    for (int64_t t = 0; t < p.types; t++)
      for (int64_t i = p.type[t].ptr[b], end = p.type[t].ptr[b + 1]; i < end; i += CHUNK)
        task[count++] = Task{b, t, i, i + CHUNK < end ? i + CHUNK : end};
  int failed = 0;
#pragma omp parallel num_threads(p.threads) reduction(| : failed)
  {
    Scratch s;
#pragma omp for schedule(dynamic, 1)
    for (int64_t k = 0; k < count; k++)
      for (int64_t i = task[k].first; i < task[k].last; i++) failed |= !forward_row<T, P>(p, s, task[k].sample, task[k].type, i);
  }
  return failed;
}

// The edges of one sample in the backward pass.
struct Edges {
  Buffer<int64_t> segment_at, segment;  // per type: place of its first segment; per (type, target, slot): first edge
  Buffer<int32_t> source, edge, target; // by target; then by source: edge number, target
  Buffer<int64_t> virtual_at, first;    // per relation: place of its first source; per (relation, source): first edge
  Buffer<float> w, z;                   // (edges, P) weights after dropout, score gradients
};

// 0, or why not: 1 an edge leaves its sample, 2 there are more pairs than an int32 can number.
static int list_edges(const Problem &p, Edges &g, int64_t b) {
  int64_t segments = 0, sources = 0, total = 0;
  g.segment_at.reserve(p.types + 1);
  g.virtual_at.reserve(p.relations + 1);
  for (int64_t t = 0; t < p.types; t++) {
    g.segment_at[t] = segments;
    segments += (p.type[t].ptr[b + 1] - p.type[t].ptr[b]) * p.type[t].Q;
  }
  for (int64_t r = 0; r < p.relations; r++) {
    const int32_t *ptr = p.type[p.relation[r].source].ptr;
    g.virtual_at[r] = sources;
    sources += ptr[b + 1] - ptr[b];
  }
  g.segment.reserve(segments + 1)[0] = 0;
  memset(g.first.reserve(sources + 2), 0, (sources + 2) * sizeof(int64_t));
  segments = 0;
  for (int64_t t = 0; t < p.types; t++) {
    const Type &to = p.type[t];
    for (int64_t i = to.ptr[b]; i < to.ptr[b + 1]; i++)
      for (int64_t q = 0; q < to.Q; q++) {
        const int64_t relation = to.entering[q];
        const Relation &r = p.relation[relation];
        if (!r.linear) {
          int32_t *source = g.source.reserve(total + most_sources(p, r, b, i)) + total;
          const int64_t n = sources_of(p, r, b, i, source);
          if (n < 0) return 1;
          if (total + n > INT32_MAX) return 2;
          int64_t *first = g.first.data + g.virtual_at[relation] - p.type[r.source].ptr[b] + 2;
          for (int64_t e = 0; e < n; e++) first[source[e]]++;
          total += n;
        }
        g.segment[++segments] = total;
      }
  }
  for (int64_t v = 2; v < sources + 2; v++) g.first[v] += g.first[v - 1];
  g.edge.reserve(total + 1);
  g.target.reserve(total + 1);
  g.w.reserve(total * p.P + 2 * SLACK);
  g.z.reserve(total * p.P + 2 * SLACK);
  segments = 0;
  for (int64_t t = 0; t < p.types; t++) {
    const Type &to = p.type[t];
    for (int64_t i = to.ptr[b]; i < to.ptr[b + 1]; i++)
      for (int64_t q = 0; q < to.Q; q++, segments++) {
        const Relation &r = p.relation[to.entering[q]];
        int64_t *first = g.first.data + g.virtual_at[to.entering[q]] - p.type[r.source].ptr[b] + 1;
        for (int64_t e = g.segment[segments]; e < g.segment[segments + 1]; e++) {
          const int64_t at = first[g.source[e]]++;
          g.edge[at] = e;
          g.target[at] = i;
        }
      }
  }
  return 0;
}

// `alone`: no other thread works on these edges, so what vector steps write after an end is written again later.
template <class T, int P>
static void backward_row(const Problem &p, const Edges &g, Scratch &s, float *datt, int64_t b, int64_t t, int64_t i, bool alone) {
  const Type &to = p.type[t];
  const int64_t width = p.H * p.C, seg = g.segment_at.data[t] + (i - to.ptr[b]) * to.Q;
  const int64_t *segment = g.segment.data + seg;
  const int64_t begin = segment[0], total = segment[to.Q] - begin;
  const char **rows = s.rows.reserve(total + 2), **keys = s.keys.reserve(total + 2);
  float *w = alone ? g.w.data + begin * P : s.w.reserve(total * P + 2 * SLACK);
  float *z = alone ? g.z.data + begin * P : s.z.reserve(total * P + 2 * SLACK);
  float *gain = s.gain.reserve(total * P + SLACK), *f = s.factor.reserve(total * P + SLACK);
  for (int64_t q = 0; q < to.Q; q++) {
    const int64_t relation = to.entering[q], e0 = segment[q] - begin, n = segment[q + 1] - segment[q];
    const Relation &r = p.relation[relation];
    if (!n) continue;
    const int32_t *source = g.source.data + segment[q];
    const float *grad = to.grad + (i * to.O + (p.merged ? 0 : q)) * width;
    float *we = w + e0 * P, *ze = z + e0 * P;
    value_rows<T>(p, r, source, n, rows + e0);
    rows[e0 + n] = rows[e0 + n - 1];
    scores<T, P>(p, relation, i, source, n, rows + e0, keys, r.kind == CSR ? r.a[i] : 0, we, gain + e0 * P, s.temp);
    if (!p.across) softmax<P>(we, n);
    if (p.P != p.H) memset(ze, 0, n * P * sizeof(float));
    if (p.value_heads != p.H) shared_dots<(W > 8 ? 8 : 4), T>(grad, (const T *const *)rows + e0, n, ze, P, 0, p.H, p.C);
    else row_dots<T>(grad, (const T *const *)rows + e0, n, ze, P, p.H, p.C);
    if (p.dropout > 0.0f) {
      dropout_factors(p, relation, i, n, f + e0 * P);
      for (int64_t k = 0; k < n * P; k++) {
        if (p.P != p.H && k % P >= p.H) f[e0 * P + k] = 0.0f;
        ze[k] *= f[e0 * P + k];
      }
    }
    if (!p.across) softmax_gradient<P>(we, ze, n);
  }
  if (p.across && total) {
    softmax<P>(w, total);
    softmax_gradient<P>(w, z, total);
  }
  for (int64_t q = 0; q < to.Q; q++) {
    const int64_t relation = to.entering[q], e0 = segment[q] - begin, n = segment[q + 1] - segment[q];
    const Relation &r = p.relation[relation];
    if (r.linear) continue;
    const int32_t *source = g.source.data + segment[q];
    const int64_t first = r.kind == CSR ? r.a[i] : 0;
    float *d = z + e0 * P;
    if (p.mode == GAT) {
      scaled_sum<P>(d, gain + e0 * P, n, to.dquery + (i * to.Q + q) * P);
      if (r.dedge) memcpy(r.dedge + first * P, d, n * P * sizeof(float));
      continue;
    }
    float *dquery = to.dquery + (i * to.Q + q) * width;
    if (!n) {
      memset(dquery, 0, width * sizeof(float));
    } else if (p.mode == DOT) {
      if (r.dedge) memcpy(r.dedge + first * P, d, n * P * sizeof(float));
      const Type &from = p.type[r.source];
      for (int64_t e = 0; e < n; e++) keys[e] = (const char *)(from.key + (source[e] * from.R + r.leaves) * width);
      keys[n] = keys[n - 1];
      weighted_sum<float>((const float *const *)keys, nullptr, n, d, P, p.H, p.C, dquery);
      for (int64_t c = 0; c < width; c++) dquery[c] *= p.scale;
    } else {
      const float *query = to.query + (i * to.Q + q) * width;
      const float *edge = r.edge ? r.edge + first * width : nullptr;
      value_rows<T>(p, r, source, n, rows + e0);
      V2Target<T> v{(const T *const *)rows + e0, n, query, p.att + relation * width, edge, p.slope, d, P, p.H, p.C, dquery, datt + relation * width, r.dedge ? r.dedge + first * width : nullptr};
      over_heads(v, p.H, p.C);
    }
  }
  if (p.dropout > 0.0f) for (int64_t k = 0; k < total * P; k++) w[k] *= f[k];
  if (!alone) {
    memcpy(g.w.data + begin * P, w, total * P * sizeof(float));
    memcpy(g.z.data + begin * P, z, total * P * sizeof(float));
  }
}

template <class T, int P>
static void backward_source(const Problem &p, const Edges &g, Scratch &s, int64_t b, int64_t relation, int64_t j) {
  typedef Heads<P> V;
  const Relation &r = p.relation[relation];
  const Type &from = p.type[r.source], &to = p.type[r.target];
  const int64_t width = p.H * p.C, row = p.row(), at = from.R * j + r.leaves;
  const int64_t *first = g.first.data + g.virtual_at.data[relation] + (j - from.ptr[b]);
  const int64_t e0 = first[0], n = first[1] - e0;
  const int32_t *edge = g.edge.data + e0, *target = g.target.data + e0;
  const int64_t outputs = to.O, slot = p.merged ? 0 : r.enters;
  const float **rows = (const float **)s.rows.reserve(n + 1);
  for (int64_t e = 0; e < n; e++) rows[e] = to.grad + (target[e] * outputs + slot) * width;
  rows[n] = rows[n ? n - 1 : 0];
  float *sum = s.temp.reserve(width + row);
  if (n == 0) memset(sum, 0, row * sizeof(float));
  else if (p.value_heads == p.H) weighted_sum<float>(rows, edge, n, g.w.data, P, p.H, p.C, sum);
  else shared_back(rows, edge, n, g.w.data, P, p.H, p.C, sum);
  if (p.mode == GAT) {
    typename V::f total = typename V::f{};
    for (int64_t e = 0; e < n; e++) total += V::get(g.z.data + (int64_t)edge[e] * P);
    V::put(from.dkey + at * P, total);
  } else if (n) {
    const float **queries = (const float **)s.keys.reserve(n + 1);
    for (int64_t e = 0; e < n; e++) queries[e] = to.query + (target[e] * to.Q + r.enters) * width;
    queries[n] = queries[n - 1];
    if (p.mode == DOT) {
      float *dkey = from.dkey + at * width;
      weighted_sum<float>(queries, edge, n, g.z.data, P, p.H, p.C, dkey);
      for (int64_t c = 0; c < width; c++) dkey[c] *= p.scale;
    } else {
      const float **extra = nullptr;
      if (r.edge) {  // place of the edge in its list: its place after the first of its target
        extra = s.extra.reserve(n);
        for (int64_t e = 0; e < n; e++) {
          const int64_t seg = g.segment_at.data[r.target] + (target[e] - to.ptr[b]) * to.Q + r.enters;
          extra[e] = r.edge + (r.a[target[e]] + edge[e] - g.segment.data[seg]) * width;
        }
      }
      V2Source<T> v{(const T *)from.value + at * row, queries, extra, edge, n, p.att + relation * width, p.slope, g.z.data, P, p.C, sum};
      over_heads(v, p.H, p.C);
    }
  } else if (p.mode == DOT) {
    memset(from.dkey + at * width, 0, width * sizeof(float));
  }
  T *out = (T *)from.dvalue + at * row;
  for (int64_t c = 0; c < row; c += W) store(out + c, load(sum + c));
}

// Samples are shared out among threads; with few samples the rows of each are. The choice, and the order in which the
// partial sums of `datt` are added, depend on the batch alone.
template <class T, int P> static int backward(const Problem &p) {
  const int64_t FEW = 8, ROWS = 512, GROUPS = 256, size = p.mode == GATV2 ? p.relations * p.H * p.C : 0;
  int failed = 0;
  Buffer<float> partial;
  if (p.B >= FEW) {
    const int64_t each = (p.B + GROUPS - 1) / GROUPS, groups = (p.B + each - 1) / each;
    memset(partial.reserve(groups * size + 1), 0, groups * size * sizeof(float));
#pragma omp parallel num_threads(p.threads) reduction(| : failed)
    {
      Scratch s;
      Edges g;
#pragma omp for schedule(dynamic, 1)
      for (int64_t k = 0; k < groups; k++)
        for (int64_t b = k * each; b < p.B && b < (k + 1) * each; b++) {
          const int why = list_edges(p, g, b);
          if (why) { failed |= why; continue; }
          for (int64_t t = 0; t < p.types; t++)
            for (int64_t i = p.type[t].ptr[b]; i < p.type[t].ptr[b + 1]; i++)
              backward_row<T, P>(p, g, s, partial.data + k * size, b, t, i, true);
          for (int64_t r = 0; r < p.relations; r++) {
            const int32_t *ptr = p.type[p.relation[r].source].ptr;
            if (!p.relation[r].linear) for (int64_t j = ptr[b]; j < ptr[b + 1]; j++) backward_source<T, P>(p, g, s, b, r, j);
          }
        }
    }
    for (int64_t k = 0; k < groups; k++)
      for (int64_t c = 0; c < size; c++) p.datt[c] += partial[k * size + c];
    return failed;
  }
  Edges g;
  for (int64_t b = 0; b < p.B; b++) {
    const int why = list_edges(p, g, b);
    if (why) return why;
    int64_t chunks = 0;
    for (int64_t t = 0; t < p.types; t++) chunks += (p.type[t].ptr[b + 1] - p.type[t].ptr[b] + ROWS - 1) / ROWS;
    memset(partial.reserve(chunks * size + 1), 0, chunks * size * sizeof(float));
#pragma omp parallel num_threads(p.threads)
    {
      Scratch s;
      int64_t before = 0;
      for (int64_t t = 0; t < p.types; t++) {
        const int64_t first = p.type[t].ptr[b], last = p.type[t].ptr[b + 1], mine = (last - first + ROWS - 1) / ROWS;
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < mine; k++)
          for (int64_t i = first + k * ROWS; i < last && i < first + (k + 1) * ROWS; i++)
            backward_row<T, P>(p, g, s, partial.data + (before + k) * size, b, t, i, false);
        before += mine;
      }
      for (int64_t r = 0; r < p.relations; r++) {
        const int32_t *ptr = p.type[p.relation[r].source].ptr;
        if (p.relation[r].linear) continue;
#pragma omp for schedule(dynamic, 64)
        for (int64_t j = ptr[b]; j < ptr[b + 1]; j++) backward_source<T, P>(p, g, s, b, r, j);
      }
    }
    for (int64_t k = 0; k < chunks; k++)
      for (int64_t c = 0; c < size; c++) p.datt[c] += partial[k * size + c];
  }
  return 0;
}
