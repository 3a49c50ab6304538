// A conversation with a loaded model: parameters, history, and one answer at a time, streamed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "device/step.h"
#include "engine/engine.h"
#include "engine/fit_chat.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard {

// What a user may set for the answers to come.
struct AnswerSettings : AnswerWishes {
  // By Ollama's names (temperature, top_k, num_predict, stop …). Throws Error(bad_input) for an unknown name
  // or a value that makes no sense. "stop" adds one.
  void set(std::string_view name, const std::string& value);
  // Every setting as "name value"; what wasn't set is as in `defaults`.
  std::vector<std::string> list(const AnswerOptions& defaults) const;
};

// Why an answer ended before the model ended it, as a sentence; empty when it didn't. `context`: tokens that
// the conversation could reach.
std::string cut_text(const Answer& answer, std::int32_t num_predict, std::uint32_t context);

class AnswerQueue;

class ChatSession {
 public:
  // The model must outlive the session or its next set_model(). `raw`: prompts are completed as they are,
  // without a template.
  ChatSession(LoadedModel& model, AnswerSettings settings, bool raw);
  // Another model takes over; the conversation stays.
  void set_model(LoadedModel& model);

  AnswerSettings& settings() { return settings_; }
  // How the next answer is drawn: as the user set it, else as the model's file says, else by the defaults.
  AnswerOptions answer_options() const { return settings_.over(model_->answer_defaults()); }
  LoadedModel& model() { return *model_; }
  bool raw() const { return raw_ || !model_->chat_template(); }
  // The tokens that the conversation may reach: of the model's context, or fewer when the user wants so (0:
  // all).
  std::uint32_t context() const;
  void limit_context(std::uint32_t tokens) { context_ = tokens; }

  // Empty: none. Takes the place of the present one, from the next answer on.
  void set_system(const std::string& text);
  const std::string& system() const { return system_; }
  // The messages with which the conversation begins, also after clear().
  void set_beginning(nlohmann::ordered_json messages);
  void clear() { turns_ = beginning_; }

  using OnText = std::function<void(std::string_view text)>;
  struct Reply {
    std::string text;
    Answer answer;
    std::size_t dropped_turns = 0;  // the oldest, forgotten because the conversation outgrew the context
  };
  using OnPrompt = std::function<void(std::uint32_t read, std::uint32_t total)>;
  // Streams the answer to `on_text` on this thread, before that how far the prompt is read to `on_prompt`.
  // Ctrl-C under an InterruptScope ends it early (DoneReason::cancelled), keeping what was said; an exception
  // of a callback cancels it. A turn that failed leaves the history as it was. Throws Error when the prompt
  // is too long or the answer fails.
  Reply ask(const std::string& prompt, const OnText& on_text, const OnPrompt& on_prompt = {});

 private:
  // The prompt of the next answer; without the oldest turns where they don't fit.
  FittedChat encode(const std::string& prompt) const;
  Reply follow(Generation generation, AnswerQueue& queue, const OnText& on_text, const OnPrompt& on_prompt);

  LoadedModel* model_;
  AnswerSettings settings_;
  bool raw_;
  std::uint32_t context_ = 0;
  std::string system_;
  nlohmann::ordered_json beginning_ = nlohmann::ordered_json::array(), turns_ = beginning_;
};

// What an answer took, for people (one line each) and programs. `load_seconds` < 0: not said.
std::string timings_text(const Answer& answer, double load_seconds);
nlohmann::ordered_json timings_json(const Answer& answer, double load_seconds);

}  // namespace steelyard
