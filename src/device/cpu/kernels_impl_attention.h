// KV pages and attention (kernels.h). Included inside an unnamed namespace after kernels_impl_matmul.h.
//
// Queries go in blocks of 4 (a query is a row and a head). Lanes are tokens for the scores (K is stored
// transposed) and dimensions for the weighted sum. A block of 32 tokens is one step of the online softmax
// (arXiv:1805.02867); masked tokens have probability zero, so that a query's bits don't depend on its
// company.

constexpr int kQ = 4;
constexpr std::uint32_t kPageBlocks = kPageTokens / kBlockTokens;
constexpr float kMinusInfinity = -__builtin_inff();

struct KvHead {                              // where things are in a block of one head
  std::uint32_t dim_k, dim_v, pad_k, pad_v;  // padded: V to 16; Q8_0 both to 32
  std::uint64_t v, k_scales, v_scales, bytes;
};
STEELYARD_INLINE KvHead kv_head(const KvLayout& l) {
  KvHead h;
  const std::uint32_t unit = l.type == DType::Q8_0 ? 32 : 16;
  const std::uint32_t size = l.type == DType::F32 ? 4 : l.type == DType::F16 ? 2 : 1;
  h.dim_k = l.head_dim_k;
  h.dim_v = l.head_dim_v;
  h.pad_k = (h.dim_k + unit - 1) / unit * unit;
  h.pad_v = (h.dim_v + unit - 1) / unit * unit;
  h.v = std::uint64_t{h.pad_k} * kBlockTokens * size;
  h.k_scales = h.v + std::uint64_t{h.pad_v} * kBlockTokens * size;
  h.v_scales = h.k_scales + h.pad_k / 32 * kBlockTokens * 2;
  h.bytes = kv_head_bytes(l) / kPageBlocks;
  return h;
}
// Block `block` of the sequence: tokens 32 block .. 32 block + 31.
STEELYARD_INLINE std::uint8_t* block_at(const KvPages& pages, std::uint32_t block, std::uint32_t head,
                                        const KvHead& h) {
  return reinterpret_cast<std::uint8_t*>(pages.base) +
         static_cast<std::uint64_t>(pages.table[block / kPageBlocks]) * pages.page_stride +
         (head * kPageBlocks + block % kPageBlocks) * h.bytes;
}

template <int N>
struct Count {
  static constexpr int value = N;
};

template <DType T>
STEELYARD_INLINE VF kv_load(const std::uint8_t* p, std::uint64_t index) {
  if constexpr (T == DType::F32) return vf_load(reinterpret_cast<const float*>(p) + index);
  if constexpr (T == DType::F16) return vf_load_f16(p + 2 * index);
  return vf_load_i8(p + index);
}

// s[N][32] = scores of N queries against a block's tokens, before scale.
template <DType T, int N>
STEELYARD_INLINE void block_scores(const KvHead& h, const std::uint8_t* data, const float* const* q,
                                   float (*s)[kBlockTokens]) {
  VF a[N], b[N];
  for (int i = 0; i < N; ++i) a[i] = b[i] = vf_zero();
  if constexpr (T == DType::Q8_0) {
    for (std::uint32_t block = 0; block < h.dim_k; block += 32) {
      VF pa[N], pb[N];
      for (int i = 0; i < N; ++i) pa[i] = pb[i] = vf_zero();
      const std::uint32_t end = min_u(block + 32, h.dim_k);
      for (std::uint32_t d = block; d < end; ++d) {
        const VF k0 = kv_load<T>(data, d * kBlockTokens), k1 = kv_load<T>(data, d * kBlockTokens + 16);
        for (int i = 0; i < N; ++i) {
          const VF x = vf_set(q[i][d]);
          pa[i] = vf_fma(k0, x, pa[i]);
          pb[i] = vf_fma(k1, x, pb[i]);
        }
      }
      const std::uint8_t* scales = data + h.k_scales + block / 32 * kBlockTokens * 2;
      const VF s0 = vf_load_f16(scales), s1 = vf_load_f16(scales + 32);
      for (int i = 0; i < N; ++i) {
        a[i] = vf_fma(pa[i], s0, a[i]);
        b[i] = vf_fma(pb[i], s1, b[i]);
      }
    }
  } else {
    for (std::uint32_t d = 0; d < h.dim_k; ++d) {
      const VF k0 = kv_load<T>(data, d * kBlockTokens), k1 = kv_load<T>(data, d * kBlockTokens + 16);
      for (int i = 0; i < N; ++i) {
        const VF x = vf_set(q[i][d]);
        a[i] = vf_fma(k0, x, a[i]);
        b[i] = vf_fma(k1, x, b[i]);
      }
    }
  }
  for (int i = 0; i < N; ++i) {
    vf_store(s[i], a[i]);
    vf_store(s[i] + 16, b[i]);
  }
}

// Scale, soft-cap, mask to tokens [lo, hi), and one online softmax step: s becomes probabilities, state[0]
// the running maximum, state[1] the running sum. Returns the factor for what was summed before.
STEELYARD_INLINE float softmax_step(const AttentionArgs& args, float* s, int lo, int hi, float* state) {
  const VF none = vf_set(kMinusInfinity), scale = vf_set(args.scale);
  VF a = vf_mul(vf_load(s), scale), b = vf_mul(vf_load(s + 16), scale);
  if (args.softcap > 0.0f) {
    const VF cap = vf_set(args.softcap), inverse = vf_set(1.0f / args.softcap);
    a = vf_mul(cap, vf_tanh(vf_mul(a, inverse)));
    b = vf_mul(cap, vf_tanh(vf_mul(b, inverse)));
  }
  a = vf_keep_range(a, lo, hi, none);
  b = vf_keep_range(b, lo - 16, hi - 16, none);
  const float top = vf_hmax(vf_max(a, b));
  const float old = state[0], now = top > old ? top : old;
  const float base = now == kMinusInfinity ? 0.0f : now;
  a = vf_exp(vf_sub(a, vf_set(base)));
  b = vf_exp(vf_sub(b, vf_set(base)));
  vf_store(s, a);
  vf_store(s + 16, b);
  float factor = 1.0f;
  if (now != old) {
    float t[16];
    vf_store(t, vf_exp(vf_set(old - base)));
    factor = t[0];
  }
  state[0] = now;
  state[1] = state[1] * factor + vf_sum(vf_add(a, b));
  return factor;
}

// sum[i][0..dim_v) = sum * factor + sum over tokens t < n of p[i][t] V[t]. N queries.
template <DType T, int N>
STEELYARD_INLINE void block_values(const KvHead& h, const std::uint8_t* data, const float (*p)[kBlockTokens],
                                   const float* factor, std::uint32_t n, float* const* sum) {
  constexpr int kV = 4;  // vectors of dimensions at once
  const std::uint8_t* v = data + h.v;
  for (std::uint32_t d = 0; d < h.pad_v; d += 16 * kV) {
    const int vectors = static_cast<int>(min_u(h.pad_v - d, 16 * kV) / 16);
    VF acc[N][kV];
    auto tokens = [&](auto count) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::value;
      for (int i = 0; i < N; ++i)
        for (int j = 0; j < kCount; ++j) acc[i][j] = vf_mul(vf_load(sum[i] + d + 16 * j), vf_set(factor[i]));
      for (std::uint32_t t = 0; t < n; ++t) {
        VF x[kCount];
        for (int j = 0; j < kCount; ++j) {
          x[j] = kv_load<T>(v, t * h.pad_v + d + 16 * j);
          if constexpr (T == DType::Q8_0) {
            const std::uint8_t* s = data + h.v_scales + (t * (h.pad_v / 32) + (d + 16 * j) / 32) * 2;
            x[j] = vf_mul(x[j], vf_bcast_f16(s));
          }
        }
        for (int i = 0; i < N; ++i) {
          const VF w = vf_set(p[i][t]);
          for (int j = 0; j < kCount; ++j) acc[i][j] = vf_fma(x[j], w, acc[i][j]);
        }
      }
      for (int i = 0; i < N; ++i)
        for (int j = 0; j < kCount; ++j) vf_store(sum[i] + d + 16 * j, acc[i][j]);
    };
    if (vectors == 4) tokens(Count<4>{});
    if (vectors == 3) tokens(Count<3>{});
    if (vectors == 2) tokens(Count<2>{});
    if (vectors == 1) tokens(Count<1>{});
  }
}

// Asks for `bytes` from `p` on, some hundred cycles before they are read: pages lie apart, so that the
// processor's own prefetching starts anew on each.
STEELYARD_INLINE void prefetch_range(const std::uint8_t* p, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i < bytes; i += 64) prefetch(p + i);
}

// One query: its row's floats, its position, and its chunk state {max, sum, ..., sums of V}.
struct Query {
  const float* q;
  std::int32_t position;
  float* state;
};

template <DType T, int N>
static void chunk_queries(const AttentionArgs& args, const KvHead& h, std::uint32_t head, std::uint32_t chunk,
                          const Query* queries, bool ahead) {
  const float* q[N];
  float* sum[N];
  std::int32_t last = queries[0].position, first = queries[0].position;
  for (int i = 0; i < N; ++i) {
    q[i] = queries[i].q;
    sum[i] = queries[i].state + 16;
    queries[i].state[0] = kMinusInfinity;
    queries[i].state[1] = 0.0f;
    for (std::uint32_t d = 0; d < h.pad_v; ++d) sum[i][d] = 0.0f;
    last = queries[i].position > last ? queries[i].position : last;
    first = queries[i].position < first ? queries[i].position : first;
  }
  const std::int32_t window = static_cast<std::int32_t>(args.window);
  constexpr auto kTokens = static_cast<std::int32_t>(kBlockTokens);
  for (std::uint32_t i = 0; i < kChunkTokens / kBlockTokens; ++i) {
    const std::uint32_t block = chunk * (kChunkTokens / kBlockTokens) + i;
    const std::int32_t start = static_cast<std::int32_t>(block) * kTokens;
    if (start > last || (window > 0 && start + kTokens <= first - window + 1)) continue;
    const std::uint8_t* data = block_at(args.pages, block, head, h);
    const std::uint8_t* next = nullptr;
    if (ahead && start + kTokens <= last) next = block_at(args.pages, block + 1, head, h);
    alignas(64) float s[N][kBlockTokens];
    float factor[N];
    if (next != nullptr) prefetch_range(next, h.v);
    block_scores<T, N>(h, data, q, s);
    for (int r = 0; r < N; ++r) {
      const int lo = window > 0 ? queries[r].position - window + 1 - start : 0;
      factor[r] = softmax_step(args, s[r], lo, queries[r].position + 1 - start, queries[r].state);
    }
    if (next != nullptr) prefetch_range(next + h.v, h.bytes - h.v);
    const std::int32_t seen = last + 1 - start;
    block_values<T, N>(h, data, s, factor, static_cast<std::uint32_t>(seen < kTokens ? seen : kTokens), sum);
  }
}

template <DType T>
STEELYARD_INLINE void chunk_typed(const AttentionArgs& args, const KvHead& h, std::uint32_t head,
                                  std::uint32_t chunk, const Query* queries, std::uint32_t n) {
  // Many queries find the keys in the cache but for the first block of them; a large one is read long enough
  // for the processor's own prefetching.
  const bool few = n <= 8 && h.bytes <= 16384;
  std::uint32_t i = 0;
  for (; i + 4 <= n; i += 4) chunk_queries<T, 4>(args, h, head, chunk, queries + i, few && i == 0);
  if (n - i == 3) chunk_queries<T, 3>(args, h, head, chunk, queries + i, few && i == 0);
  if (n - i == 2) chunk_queries<T, 2>(args, h, head, chunk, queries + i, few && i == 0);
  if (n - i == 1) chunk_queries<T, 1>(args, h, head, chunk, queries + i, few && i == 0);
}

static void attention_chunk_queries(const AttentionArgs& args, const KvHead& h, std::uint32_t head,
                                    std::uint32_t chunk, const Query* queries, std::uint32_t n) {
  if (args.layout.type == DType::F16) return chunk_typed<DType::F16>(args, h, head, chunk, queries, n);
  if (args.layout.type == DType::Q8_0) return chunk_typed<DType::Q8_0>(args, h, head, chunk, queries, n);
  chunk_typed<DType::F32>(args, h, head, chunk, queries, n);
}

STEELYARD_INLINE float exp1(float x) {
  float t[16];
  vf_store(t, vf_exp(vf_set(x)));
  return t[0];
}

// merged = merged + chunk, both {max, sum, ..., sums of V}.
static void merge_state(const float* chunk, std::uint32_t dim_v, float* merged) {
  if (chunk[0] == kMinusInfinity) return;  // no key of this chunk was in sight
  const float top = merged[0] > chunk[0] ? merged[0] : chunk[0];
  const float a = exp1(merged[0] - top), b = exp1(chunk[0] - top);
  merged[0] = top;
  merged[1] = merged[1] * a + chunk[1] * b;
  for (std::uint32_t d = 0; d < dim_v; d += 16)
    vf_store(merged + 16 + d,
             vf_fma(vf_load(chunk + 16 + d), vf_set(b), vf_mul(vf_load(merged + 16 + d), vf_set(a))));
}

static void begin_state(std::uint32_t dim_v, float* merged) {
  merged[0] = kMinusInfinity;
  merged[1] = 0.0f;
  for (std::uint32_t d = 0; d < dim_v; d += 16) vf_store(merged + 16 + d, vf_zero());
}

static void finish_state(const float* merged, std::uint32_t dim_v, const float* sink, float* out) {
  float factor = 1.0f, sum = merged[1];
  if (sink != nullptr) {
    const float top = merged[0] > *sink ? merged[0] : *sink;
    factor = exp1(merged[0] - top);
    sum = sum * factor + exp1(*sink - top);
  }
  const VF f = vf_set(factor / sum);
  std::uint32_t d = 0;
  for (; d + 16 <= dim_v; d += 16) vf_store(out + d, vf_mul(vf_load(merged + 16 + d), f));
  if (d < dim_v) store_part(out + d, dim_v - d, vf_mul(vf_load(merged + 16 + d), f));
}

static void attention_chunk_kernel(const AttentionArgs& args, std::uint32_t kv_head_index, std::uint32_t row,
                                   std::int32_t position, std::uint32_t chunk, float* partials) {
  const KvHead h = kv_head(args.layout);
  const std::uint32_t group = args.n_heads / args.layout.n_kv_heads;
  const float* q = args.q + row * args.q_stride + std::uint64_t{kv_head_index} * group * h.dim_k;
  const std::uint32_t stride = partial_floats(h.dim_v);
  for (std::uint32_t done = 0; done < group; done += kQueryTile) {
    Query queries[kQueryTile];
    const std::uint32_t n = min_u(group - done, kQueryTile);
    for (std::uint32_t i = 0; i < n; ++i)
      queries[i] = {q + (done + i) * h.dim_k, position, partials + std::uint64_t{done + i} * stride};
    attention_chunk_queries(args, h, kv_head_index, chunk, queries, n);
  }
}

static void attention_merge_kernel(const float* partials, std::uint64_t stride, std::uint32_t n_chunks,
                                   std::uint32_t dim_v, const float* sink, float* out) {
  alignas(64) float merged[16 + kMaxHeadDim];
  begin_state(dim_v, merged);
  for (std::uint32_t i = 0; i < n_chunks; ++i) merge_state(partials + i * stride, dim_v, merged);
  finish_state(merged, dim_v, sink, out);
}

// A tile of queries: n consecutive (row, head) pairs, row-major over the group's heads.
STEELYARD_INLINE void attention_tile(const AttentionArgs& args, const KvHead& h, std::uint32_t head,
                                     std::uint32_t group, std::uint32_t pair, std::uint32_t n,
                                     std::int32_t first_position, float* out, std::uint64_t out_stride,
                                     float* scratch) {
  const std::uint32_t stride = partial_floats(h.dim_v);
  Query queries[kQueryTile];
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::uint32_t row = (pair + i) / group, sub = (pair + i) % group;
    queries[i] = {args.q + row * args.q_stride + std::uint64_t{head * group + sub} * h.dim_k,
                  first_position + static_cast<std::int32_t>(row), scratch + i * 2 * stride};
    begin_state(h.dim_v, scratch + i * 2 * stride + stride);
  }
  const std::uint32_t end = end_chunk(queries[n - 1].position);
  for (std::uint32_t c = first_chunk(queries[0].position, args.window); c < end; ++c) {
    std::uint32_t begin = 0;  // queries before `begin` end before this chunk
    while (end_chunk(queries[begin].position) <= c) ++begin;
    std::uint32_t stop = n;  // from here on the window starts after it
    while (first_chunk(queries[stop - 1].position, args.window) > c) --stop;
    attention_chunk_queries(args, h, head, c, queries + begin, stop - begin);
    for (std::uint32_t i = begin; i < stop; ++i)
      merge_state(queries[i].state, h.dim_v, queries[i].state + stride);
  }
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::uint32_t row = (pair + i) / group, index = head * group + (pair + i) % group;
    finish_state(queries[i].state + stride, h.dim_v, args.sinks != nullptr ? args.sinks + index : nullptr,
                 out + row * out_stride + std::uint64_t{index} * h.dim_v);
  }
}

static void attention_kernel(const AttentionArgs& args, std::uint32_t head, std::uint32_t row_begin,
                             std::uint32_t row_end, std::int32_t first_position, float* out,
                             std::uint64_t out_stride, std::byte* scratch) {
  const KvHead h = kv_head(args.layout);
  const std::uint32_t group = args.n_heads / args.layout.n_kv_heads;
  for (std::uint32_t pair = row_begin * group; pair < row_end * group; pair += kQueryTile)
    attention_tile(args, h, head, group, pair, min_u(kQueryTile, row_end * group - pair), first_position, out,
                   out_stride, reinterpret_cast<float*>(scratch));
}

// ---- Appending ----

STEELYARD_INLINE void put_half(std::uint8_t* p, float x) {
  std::uint8_t t[32];
  vf_store_f16(t, vf_set(x));
  __builtin_memcpy(p, t, 2);
}

// 32 values -> i8 with one f16 scale.
STEELYARD_INLINE void quantize_kv(const float* x, std::uint32_t n, std::uint8_t* q, std::uint8_t* scale) {
  const VF a = n >= 16 ? vf_load(x) : load_part(x, n);
  const VF b = n >= 32 ? vf_load(x + 16) : n > 16 ? load_part(x + 16, n - 16) : vf_zero();
  const float top = vf_hmax(vf_max(vf_abs(a), vf_abs(b)));
  put_half(scale, top * (1.0f / 127.0f));
  float t[16];
  vf_store(t, vf_bcast_f16(scale));  // the scale as it is stored
  const VF inverse = vf_set(t[0] > 0.0f ? 1.0f / t[0] : 0.0f), limit = vf_set(127.0f);
  const VF low = vf_sub(vf_zero(), limit);
  vi_store_i8(q, vf_round(vf_max(vf_min(vf_mul(a, inverse), limit), low)));
  vi_store_i8(q + 16, vf_round(vf_max(vf_min(vf_mul(b, inverse), limit), low)));
}

// Token t of a block.
static void append_head_q8(const KvHead& h, std::uint8_t* data, std::uint32_t t, const float* k,
                           const float* v) {
  std::uint8_t q[32];
  for (std::uint32_t d = 0; d < h.pad_k; d += 32) {
    quantize_kv(k + d, min_u(32, h.dim_k - d), q, data + h.k_scales + d / 32 * kBlockTokens * 2 + t * 2);
    for (std::uint32_t i = 0; i < 32; ++i) data[(d + i) * kBlockTokens + t] = q[i];
  }
  for (std::uint32_t d = 0; d < h.pad_v; d += 32)
    quantize_kv(v + d, min_u(32, h.dim_v - d), data + h.v + t * h.pad_v + d,
                data + h.v_scales + (t * (h.pad_v / 32) + d / 32) * 2);
}

static void append_head_float(const KvHead& h, std::uint8_t* data, std::uint32_t t, const float* k,
                              const float* v, bool half) {
  for (std::uint32_t d = 0; d < h.pad_k; d += 16) {
    const std::uint32_t n = min_u(16, h.dim_k - d);
    const VF x = n == 16 ? vf_load(k + d) : load_part(k + d, n);
    std::uint8_t line[64];
    if (half) {
      vf_store_f16(line, x);
      for (std::uint32_t i = 0; i < 16; ++i)
        __builtin_memcpy(data + ((d + i) * kBlockTokens + t) * 2, line + 2 * i, 2);
    } else {
      vf_store(reinterpret_cast<float*>(line), x);
      for (std::uint32_t i = 0; i < 16; ++i)
        __builtin_memcpy(data + ((d + i) * kBlockTokens + t) * 4, line + 4 * i, 4);
    }
  }
  for (std::uint32_t d = 0; d < h.pad_v; d += 16) {
    const std::uint32_t n = min_u(16, h.dim_v - d);
    const VF x = n == 16 ? vf_load(v + d) : load_part(v + d, n);
    if (half) {
      vf_store_f16(data + h.v + (std::uint64_t{t} * h.pad_v + d) * 2, x);
    } else {
      vf_store(reinterpret_cast<float*>(data + h.v) + std::uint64_t{t} * h.pad_v + d, x);
    }
  }
}

static void append_kv_kernel(const KvLayout& layout, const KvPages& pages, std::int32_t position,
                             const float* k, const float* v, std::uint32_t head_begin,
                             std::uint32_t head_end) {
  const KvHead h = kv_head(layout);
  const std::uint32_t block = static_cast<std::uint32_t>(position) / kBlockTokens;
  const std::uint32_t t = static_cast<std::uint32_t>(position) % kBlockTokens;
  for (std::uint32_t i = head_begin; i < head_end; ++i) {
    std::uint8_t* data = block_at(pages, block, i, h);
    const float *ki = k + std::uint64_t{i} * h.dim_k, *vi = v + std::uint64_t{i} * h.dim_v;
    if (layout.type == DType::Q8_0) {
      append_head_q8(h, data, t, ki, vi);
    } else {
      append_head_float(h, data, t, ki, vi, layout.type == DType::F16);
    }
  }
}
