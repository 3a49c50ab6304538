// Logical KV pages: who holds them, which hold a known prefix, which may be had. The ids are valid in every
// state of their group; decoder/ owns the storage. Everything is allocated by the constructor. Not
// thread-safe: the engine's thread owns it.
//
// A page is free, held (references > 0), or cached (no references, but its contents are known, so a request
// with the same beginning may take it up again; the one longest unused goes first when pages run out).
// Contents are known by a chain: a page's key is its parent's key hashed with its own tokens; lookup compares
// the tokens themselves, so that only a collision of the parents' 128-bit keyed hashes could mistake a page
// for another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace steelyard {

// Names everything before a page; the sequence's beginning is {}.
struct PrefixKey {
  std::uint64_t high = 0, low = 0;
  bool operator==(const PrefixKey&) const = default;
};

struct PoolUse {
  std::uint32_t pages = 0;  // = held + cached + free
  std::uint32_t held = 0;
  std::uint32_t cached = 0;
  std::uint32_t free = 0;
  std::uint32_t shared = 0;  // held by two sequences or more
  std::uint64_t filled_tokens =
      0;  // in held pages, shared ones once; ÷ (held · page_tokens) = how full they are
};

class PagePool {
 public:
  PagePool(std::uint32_t pages, std::uint32_t page_tokens);

  std::uint32_t pages() const { return static_cast<std::uint32_t>(pages_.size()); }
  std::uint32_t page_tokens() const { return page_tokens_; }
  std::uint32_t available() const { return free_count_ + cached_count_; }
  PoolUse use() const;

  // The key of the position after a full page of `tokens` that follows `parent`.
  PrefixKey next_key(const PrefixKey& parent, std::span<const std::int32_t> tokens) const;

  // A page of unknown contents with one reference; -1 when every page is held.
  std::int32_t allocate();
  // One more reference; a cached page becomes held.
  void hold(std::int32_t page);
  // One reference less; at none it is cached when published, else free.
  void release(std::int32_t page);
  bool shared(std::int32_t page) const { return pages_[page].references > 1; }
  bool published(std::int32_t page) const { return pages_[page].published; }

  // How many tokens a held page holds now; for use() only.
  void set_filled(std::int32_t page, std::uint32_t tokens);

  // Declares what the first tokens.size() places of a page hold, after `parent`. When a page with these
  // contents is known already nothing is published and that page is returned, else `page`.
  std::int32_t publish(std::int32_t page, const PrefixKey& parent, std::span<const std::int32_t> tokens);
  // Makes a held, unshared page private again, so that it may be written.
  void withdraw(std::int32_t page);

  struct Match {
    std::int32_t page = -1;
    std::uint32_t tokens = 0;  // how many of the page's tokens agree, from its beginning
    std::uint32_t filled = 0;  // how many the page holds
  };
  // The page after `parent` that agrees with most of `tokens`.
  Match find(const PrefixKey& parent, std::span<const std::int32_t> tokens) const;

 private:
  static constexpr std::int32_t kNone = -1;
  struct Page {
    std::uint32_t references = 0;
    std::uint32_t filled = 0;
    bool published = false;
    PrefixKey parent;
    std::int32_t chain_next = kNone;            // of its bucket
    std::int32_t older = kNone, newer = kNone;  // cached pages by time of release; free ones by `newer`
  };

  std::size_t bucket(const PrefixKey& key) const { return key.low & (buckets_.size() - 1); }
  std::span<const std::int32_t> tokens_of(std::int32_t page) const;
  void unlink_chain(std::int32_t page);
  void push_cached(std::int32_t page);
  void unlink_cached(std::int32_t page);
  void push_free(std::int32_t page);

  std::uint32_t page_tokens_;
  std::vector<Page> pages_;
  std::vector<std::int32_t> tokens_;   // [pages][page_tokens] of published pages
  std::vector<std::int32_t> buckets_;  // first page by its parent's key; a power of two
  std::int32_t free_head_ = kNone, oldest_ = kNone, newest_ = kNone;
  std::uint32_t free_count_ = 0, cached_count_ = 0, shared_count_ = 0;
  std::uint64_t held_tokens_ = 0;
  std::uint64_t secret_[4];
};

}  // namespace steelyard
