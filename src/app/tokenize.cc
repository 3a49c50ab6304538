// steelyard tokenize
#include <algorithm>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model, file;
  bool special = false, bos = false, pieces = false, json = false;
};

// One line of ASCII and UTF-8: control characters and quotes escaped, bytes that aren't UTF-8 as \xNN.
std::string quoted(std::string_view piece) {
  std::string out = "\"";
  for (std::size_t i = 0; i < piece.size();) {
    const auto c = static_cast<unsigned char>(piece[i]);
    const std::size_t length = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    const std::string_view character = piece.substr(i, length);
    if (c == '\n')
      out += "\\n", ++i;
    else if (c == '"' || c == '\\')
      out += {'\\', static_cast<char>(c)}, ++i;
    else if (c < 0x20 || c == 0x7F || (c >= 0x80 && valid_utf8(character) != character))
      out += fmt::format("\\x{:02x}", c), ++i;
    else
      out += character, i += length;
  }
  return out + "\"";
}

// Bytes of the text that none of its tokens `ids` stands for: byte-level vocabularies needn't have every
// byte.
std::size_t dropped_bytes(const Tokenizer& tokenizer, const std::string& text,
                          const std::vector<TokenId>& ids, EncodeOptions options) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.kind() != VocabularyKind::bpe) return 0;
  if (options.parse_special && vocabulary.strip_after_special()) return 0;  // leaves spaces out on purpose
  const auto bytes = [&](TokenId id) { return tokenizer.piece(id, true).size(); };
  std::size_t added = 0, kept = 0;
  if (options.add_special && vocabulary.add_bos()) added += bytes(vocabulary.bos());
  if (options.add_special && vocabulary.add_eos()) added += bytes(vocabulary.eos());
  for (const TokenId id : ids) kept += bytes(id);
  return text.size() - std::min(text.size(), kept - added);
}

void note_losses(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, std::size_t dropped) {
  if (dropped > 0)
    note(
        "warning: {} byte{} of the text {} no token in this vocabulary: dropped, the ids don't give the text "
        "back",
        dropped, dropped == 1 ? "" : "s", dropped == 1 ? "has" : "have");
  const auto unknown = std::count(ids.begin(), ids.end(), tokenizer.vocabulary().unknown());
  if (unknown > 0) note("warning: {} of the tokens stand for text that the vocabulary doesn't know", unknown);
}

void print_tokens(const Flags& flags, const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                  std::size_t dropped) {
  if (flags.json) {
    nlohmann::ordered_json value = {{"ids", ids}, {"dropped_bytes", dropped}};
    if (flags.pieces)
      for (const TokenId id : ids) value["pieces"].push_back(quoted(tokenizer.piece(id, true)));
    print_json(value);
    return;
  }
  std::string out;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (flags.pieces)
      out += fmt::format("{}\t{}\n", ids[i], quoted(tokenizer.piece(ids[i], true)));
    else
      out += fmt::format("{}{}", i ? " " : "", ids[i]);
  }
  write_stdout(flags.pieces ? out : out + "\n");
}

int tokenize(const Flags& flags) {
  const GgufFile file = GgufFile::open(resolve_model(flags.model));
  const Tokenizer tokenizer(Vocabulary::from_metadata(file.metadata()));
  if (tokenizer.vocabulary().pre_missing())
    note(
        "warning: the file names no pre-tokenizer; the default is used, and ids may differ from the model's");
  const std::string text = read_input(flags.file);
  const EncodeOptions options{.add_special = flags.bos, .parse_special = flags.special};
  const auto ids = tokenizer.encode(text, options);
  const std::size_t dropped = dropped_bytes(tokenizer, text, ids, options);
  note_losses(tokenizer, ids, dropped);
  print_tokens(flags, tokenizer, ids, dropped);
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  auto* command = add_command(app, "tokenize", "print the token ids of a text",
                              "  echo -n 'Hello world' | steelyard tokenize smollm2 -\n"
                              "  steelyard tokenize model.gguf prompt.txt --special --pieces");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_option("FILE", flags->file, "the text; - for standard input")->required();
  command->add_flag("--special", flags->special,
                    "control tokens written out in the text become those tokens");
  command->add_flag("--bos", flags->bos, "add the tokens that the model wants at the start and the end");
  command->add_flag("--pieces", flags->pieces, "one token a line: its id and the bytes it stands for");
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([&action, flags] { action = [flags] { return tokenize(*flags); }; });
}

}  // namespace steelyard
