#include "api/choices.h"

#include <algorithm>
#include <utility>

namespace steelyard::api {

Choices::Choices(Strand strand, std::shared_ptr<const LoadedModel> model, std::vector<EngineRequest> requests,
                 std::uint32_t alike)
    : strand_(strand),
      model_(std::move(model)),
      alike_(std::max(alike, 1u)),
      signal_(std::make_shared<Signal>(strand)),
      choices_(requests.size()) {
  running_.reserve(requests.size());
  for (EngineRequest& request : requests) running_.push_back({.request = std::move(request)});
}

void Choices::begin() {
  for (std::size_t i = 0; i < running_.size(); i += alike_) submit(running_[i]);
}

// What the engine's thread calls holds the mailbox itself: it may outlive this.
void Choices::submit(Running& r) {
  const auto mailbox = std::make_shared<Mailbox>(signal_);
  r.request.on_text = [mailbox](std::string_view text) { mailbox->put(text); };
  r.request.on_done = [mailbox](const Answer& answer) { mailbox->finish(answer); };
  r.generation = model_->engine().submit(std::move(r.request));
  r.mailbox = mailbox;
}

void Choices::submit_followers(std::size_t leader) {
  for (std::size_t i = leader + 1; i < leader + alike_ && i < running_.size(); ++i)
    if (!running_[i].mailbox && !cancelled_) submit(running_[i]);
}

asio::awaitable<bool> Choices::wait(std::chrono::milliseconds patience) {
  const bool news = co_await signal_->wait(patience);
  co_return news;
}

bool Choices::take(std::vector<News>& news) {
  news.clear();
  bool all = true;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Running& r = running_[i];
    if (r.mailbox && !r.ended) {
      News n{.choice = static_cast<std::uint32_t>(i), .text = {}, .ended = false};
      r.ended = n.ended = r.mailbox->take(n.text, choices_[i].answer);
      if (n.ended) choices_[i].tokens = r.generation.tokens();
      if (i % alike_ == 0 && (n.ended || !n.text.empty())) submit_followers(i);
      if (n.ended || !n.text.empty()) news.push_back(std::move(n));
    }
    all &= r.ended;
  }
  return all;
}

void Choices::cancel() {
  cancelled_ = true;
  for (Running& r : running_) r.generation.cancel();
}

}  // namespace steelyard::api
