#include "api/choices.h"

#include <algorithm>
#include <utility>

namespace steelyard::api {

Choices::Choices(Strand strand, std::shared_ptr<const LoadedModel> model, std::vector<EngineRequest> requests,
                 std::uint32_t alike, std::uint32_t at_once)
    : model_(std::move(model)),
      alike_(std::max(alike, 1u)),
      at_once_(std::max(at_once, 1u)),
      signal_(strand),
      choices_(requests.size()) {
  running_.reserve(requests.size());
  for (EngineRequest& request : requests) {
    Running& r = running_.emplace_back();
    r.request = std::move(request);
  }
}

void Choices::begin() { submit_more(); }

// What the engine's thread calls holds the mailbox itself: it may outlive this.
void Choices::submit(Running& r) {
  const auto mailbox = std::make_shared<Mailbox>(signal_.waker());
  r.request.on_text = [mailbox](std::string_view text) { mailbox->put(text); };
  r.request.on_done = [mailbox](const Answer& answer) { mailbox->finish(answer); };
  if (r.request.logprobs >= 0)
    r.request.on_chances = [mailbox](const TokenChances& chances) { mailbox->put(chances); };
  r.generation = model_->engine().submit(std::move(r.request));
  r.mailbox = mailbox;
}

void Choices::submit_more() {
  std::uint32_t under_way = 0;
  for (std::size_t i = 0; i < unsubmitted_; ++i) under_way += running_[i].mailbox && !running_[i].ended;
  bool all = true;
  for (std::size_t i = unsubmitted_; i < running_.size() && under_way < at_once_ && !cancelled_; ++i) {
    const bool may = i % alike_ == 0 || running_[i - i % alike_].news;
    if (may && !running_[i].mailbox) submit(running_[i]);
    under_way += running_[i].mailbox && !running_[i].ended;
    all &= running_[i].mailbox != nullptr;
    if (all) unsubmitted_ = i + 1;
  }
}

asio::awaitable<bool> Choices::wait(std::chrono::milliseconds patience) {
  const bool news = co_await signal_.wait(patience);
  co_return news;
}

bool Choices::take(std::vector<News>& news) {
  news.clear();
  bool all = true;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Running& r = running_[i];
    if (r.mailbox && !r.ended) {
      News n{.choice = static_cast<std::uint32_t>(i), .text = {}, .chances = {}, .ended = false};
      r.ended = n.ended = r.mailbox->take(n.text, n.chances, choices_[i].answer);
      if (n.ended) choices_[i].tokens = r.generation.tokens();
      if (n.ended) choices_[i].embedding = r.generation.embedding();
      const bool anything = n.ended || !n.text.empty() || !n.chances.empty();
      r.news |= anything;
      if (anything) news.push_back(std::move(n));
    }
    all &= r.ended;
  }
  if (!all) submit_more();
  return all;
}

void Choices::cancel() {
  cancelled_ = true;
  for (Running& r : running_) r.generation.cancel();
}

}  // namespace steelyard::api
