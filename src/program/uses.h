// What an op uses: weights, buffers, states. One answer a question for everybody who asks (planning, cost,
// back ends, tests), each an exhaustive visit: a new op doesn't compile before it has answered them all.
// Pure; nothing is allocated.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <optional>

#include "program/program.h"

namespace steelyard {

// For std::visit: one lambda an op. Without a generic one it is exhaustive.
template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

// At most sixteen values, in the order in which the op names them.
template <typename T>
class Few {
 public:
  using value_type = T;
  using const_iterator = const T*;
  constexpr Few(std::initializer_list<T> values) {
    for (const T& value : values) values_[size_++] = value;
  }
  constexpr const T* begin() const { return values_.data(); }
  constexpr const T* end() const { return values_.data() + size_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr const T& operator[](std::size_t i) const { return values_[i]; }
  constexpr void push(const T& value) { values_[size_++] = value; }
  friend bool operator==(const Few& a, const Few& b) {
    if (a.size_ != b.size_) return false;
    for (std::size_t i = 0; i < a.size_; ++i)
      if (!(a[i] == b[i])) return false;
    return true;
  }

 private:
  std::array<T, 16> values_{};
  std::size_t size_ = 0;
};

// How an op uses a weight: `lookup` reads the rows of the step's tokens, `product` multiplies by the matrix,
// `vector` reads it whole (norm, bias, sinks), `experts` uses those of `chosen` experts a row.
enum class WeightUse : std::uint8_t { lookup, product, vector, experts };
struct UsedWeight {
  WeightId id;
  WeightUse use;
  std::uint32_t chosen = 0;
  bool operator==(const UsedWeight&) const = default;
};
// Those that the op names itself and has (not kNoWeight); a rope's factors are the program's.
Few<UsedWeight> weights_of(const Op& op);

// The matrices that an op multiplies with one input for every row; none: weights is empty. (Of experts the
// router alone: which rows they get is known when it has run.)
struct Products {
  Few<WeightId> weights;
  BufferId in = kNoBuffer;
  RowSet rows = RowSet::all;  // rows of the step that are multiplied
};
Products products(const Op& op);

// Buffers that hold something for the ops after this one once it is done …
Few<BufferId> writes(const Op& op);
// … and those it needs filled. What rope_append leaves in k and v is the back end's: it hands them to the
// state.
Few<BufferId> reads(const Op& op);

// The KV state that an op adds the step's rows to …
std::optional<StateId> appends_to(const Op& op);
// … and the one it attends over.
struct Attends {
  StateId state;
  std::uint32_t n_heads;
  std::uint32_t window;  // 0: none
};
std::optional<Attends> attends(const Op& op);

// The link that an op hands rows to, or takes them from.
struct UsedLink {
  LinkId link;
  BufferId rows;
  bool sends;
};
std::optional<UsedLink> link_of(const Op& op);
// The link that a part's program sends to, or receives from; it has one of each at most.
std::optional<UsedLink> link_end(const Program& program, bool sends);

// The link by which an op trades floats with the other ranks of its stage; kNoLink: it doesn't.
LinkId exchange_of(const Op& op);

// Where in a step an op stands: what turns tokens into values, the layers, what turns values into logits, the
// choice of tokens; and what joins it to other parts of the model.
enum class OpRole : std::uint8_t { input, layer, logits, sample, link };
OpRole role(const Op& op);

// Whether the program needs to know the step's tokens: it turns them into values, or chooses the next ones.
bool reads_tokens(const Program& program);
bool samples(const Program& program);

// The buffer of the program's logits, of all tokens; kNoBuffer: it has none.
BufferId logits_of(const Program& program);

}  // namespace steelyard
