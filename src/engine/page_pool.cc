#include "engine/page_pool.h"

#include <algorithm>
#include <bit>
#include <random>

namespace steelyard {
namespace {

// Folded 128-bit product: every input bit reaches the whole result.
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

PagePool::PagePool(std::uint32_t pages, std::uint32_t page_tokens)
    : page_tokens_(page_tokens),
      pages_(pages),
      tokens_(std::size_t{pages} * page_tokens),
      buckets_(std::bit_ceil(std::max(2 * pages, 2u)), kNone) {
  std::random_device random;
  for (auto& word : secret_) word = (std::uint64_t{random()} << 32 | random()) | 1;
  for (std::uint32_t page = pages; page-- > 0;) push_free(static_cast<std::int32_t>(page));
}

PoolUse PagePool::use() const {
  return {.pages = pages(),
          .held = pages() - free_count_ - cached_count_,
          .cached = cached_count_,
          .free = free_count_,
          .shared = shared_count_,
          .filled_tokens = held_tokens_};
}

PrefixKey PagePool::next_key(const PrefixKey& parent, std::span<const std::int32_t> tokens) const {
  PrefixKey key{mix(parent.high ^ secret_[0], secret_[1] ^ tokens.size()),
                mix(parent.low ^ secret_[2], secret_[3] ^ tokens.size())};
  for (const auto token : tokens) {
    const auto value = static_cast<std::uint32_t>(token);
    key.high = mix(key.high ^ value, secret_[1]) + parent.low;
    key.low = mix(key.low ^ value, secret_[3]) + parent.high;
  }
  return key;
}

std::int32_t PagePool::allocate() {
  std::int32_t page = free_head_;
  if (page != kNone) {
    free_head_ = pages_[page].newer;
    --free_count_;
  } else if (oldest_ != kNone) {
    page = oldest_;
    unlink_cached(page);
    unlink_chain(page);
  } else {
    return kNone;
  }
  pages_[page] = Page{.references = 1};
  return page;
}

void PagePool::hold(std::int32_t page) {
  Page& p = pages_[page];
  if (p.references == 0) {
    unlink_cached(page);
    held_tokens_ += p.filled;
  } else if (p.references == 1) {
    ++shared_count_;
  }
  ++p.references;
}

void PagePool::release(std::int32_t page) {
  Page& p = pages_[page];
  --p.references;
  if (p.references == 1) --shared_count_;
  if (p.references > 0) return;
  held_tokens_ -= p.filled;
  if (p.published) {
    push_cached(page);
  } else {
    push_free(page);
  }
}

void PagePool::set_filled(std::int32_t page, std::uint32_t tokens) {
  held_tokens_ += tokens;
  held_tokens_ -= pages_[page].filled;
  pages_[page].filled = tokens;
}

std::int32_t PagePool::publish(std::int32_t page, const PrefixKey& parent,
                               std::span<const std::int32_t> tokens) {
  if (const Match known = find(parent, tokens);
      known.tokens == tokens.size() && known.filled >= tokens.size())
    return known.page;
  Page& p = pages_[page];
  if (p.published) unlink_chain(page);
  set_filled(page, static_cast<std::uint32_t>(tokens.size()));
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + std::ptrdiff_t{page} * page_tokens_);
  p.published = true;
  p.parent = parent;
  auto& head = buckets_[bucket(parent)];
  p.chain_next = head;
  head = page;
  return page;
}

void PagePool::withdraw(std::int32_t page) {
  if (pages_[page].published) unlink_chain(page);
}

PagePool::Match PagePool::find(const PrefixKey& parent, std::span<const std::int32_t> tokens) const {
  Match best;
  for (std::int32_t page = buckets_[bucket(parent)]; page != kNone; page = pages_[page].chain_next) {
    const Page& p = pages_[page];
    if (!(p.parent == parent)) continue;
    const auto held = tokens_of(page);
    const std::size_t most = std::min(held.size(), tokens.size());
    const auto agree = static_cast<std::uint32_t>(
        std::mismatch(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(most), tokens.begin()).first -
        held.begin());
    if (agree > best.tokens) best = {page, agree, p.filled};
    if (agree == tokens.size()) break;
  }
  return best;
}

std::span<const std::int32_t> PagePool::tokens_of(std::int32_t page) const {
  return {tokens_.data() + std::size_t(page) * page_tokens_, pages_[page].filled};
}

void PagePool::unlink_chain(std::int32_t page) {
  Page& p = pages_[page];
  std::int32_t* link = &buckets_[bucket(p.parent)];
  while (*link != page) link = &pages_[*link].chain_next;
  *link = p.chain_next;
  p.chain_next = kNone;
  p.published = false;
}

void PagePool::push_cached(std::int32_t page) {
  Page& p = pages_[page];
  p.older = newest_;
  p.newer = kNone;
  (newest_ == kNone ? oldest_ : pages_[newest_].newer) = page;
  newest_ = page;
  ++cached_count_;
}

void PagePool::unlink_cached(std::int32_t page) {
  Page& p = pages_[page];
  (p.older == kNone ? oldest_ : pages_[p.older].newer) = p.newer;
  (p.newer == kNone ? newest_ : pages_[p.newer].older) = p.older;
  p.older = p.newer = kNone;
  --cached_count_;
}

void PagePool::push_free(std::int32_t page) {
  pages_[page] = Page{.newer = free_head_};
  free_head_ = page;
  ++free_count_;
}

}  // namespace steelyard
