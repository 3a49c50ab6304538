#include "store/quantize_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <future>
#include <system_error>

#include "base/dtype.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "gguf/writer.h"
#include "quant/quant.h"

namespace steelyard {
namespace {

constexpr std::uint64_t kPieceElements = 1 << 20;
constexpr std::uint32_t kQuantizationVersion = 2;  // of the block formats: the only one in use

bool is_float(DType type) { return dtype_info(type).block == 1; }

// What a model can't do without is small and stays as it is: everything but matrices of weights, and the
// routers that choose experts.
bool may_change(const GgufTensor& t) {
  const std::string_view name = t.name;
  return t.shape.n_dims >= 2 && name.ends_with(".weight") && name.find("_norm") == std::string_view::npos &&
         name.find("ffn_gate_inp") == std::string_view::npos &&
         name.find("ssm_conv1d") == std::string_view::npos && name != "position_embd.weight" &&
         name != "token_types.weight";
}

// The model's part of a TensorPlace.
TensorPlace model_place(const GgufFile& file) {
  const GgufMetadata& m = file.metadata();
  const std::string arch(m.find_string("general.architecture").value_or(""));
  const auto number = [&](const char* key) -> std::uint32_t {
    const GgufEntry* entry = m.find(arch + "." + key);
    if (!entry || entry->type() == GgufType::array) return 0;
    return static_cast<std::uint32_t>(m.find_uint(arch + "." + key, 1u << 20).value_or(0));
  };
  TensorPlace place;
  place.layers = number("block_count");
  place.experts = number("expert_count");
  place.tied = file.find_tensor("output.weight") == nullptr;
  const std::uint32_t heads = number("attention.head_count"), kv_heads = number("attention.head_count_kv");
  if (kv_heads > 0) place.heads_per_kv_head = heads / kv_heads;
  return place;
}

DType wanted_type(const GgufTensor& t, TensorPlace place, const QuantizeOptions& options) {
  for (const TypeRule& rule : options.rules)
    if (std::regex_search(t.name, rule.name)) {
      if (t.shape.columns() % dtype_info(rule.type).block != 0)
        throw_error(ErrorKind::bad_input, "{} can't be {}: its rows of {} weights are no whole blocks of {}",
                    t.name, dtype_info(rule.type).name, t.shape.columns(), dtype_info(rule.type).block);
      return rule.type;
    }
  if (!may_change(t)) return t.type;
  place.name = t.name;
  place.columns = t.shape.columns();
  if (t.name.starts_with("blk."))
    place.layer = static_cast<std::uint32_t>(std::strtoul(t.name.c_str() + 4, nullptr, 10));
  const bool embedding = t.name == "token_embd.weight";
  const bool output = t.name == "output.weight" || (embedding && place.tied);
  if (output && options.output) return fitting_type(*options.output, place.columns);
  if (embedding && options.embedding) return fitting_type(*options.embedding, place.columns);
  return tensor_type(options.mixture, place);
}

// A run of whole rows of one tensor.
struct Piece {
  const TensorChange* change;
  std::uint64_t begin, elements;
};

std::vector<Piece> cut(std::span<const TensorChange> changes) {
  std::vector<Piece> pieces;
  for (const TensorChange& change : changes) {
    const GgufShape& shape = change.tensor->shape;
    const std::uint64_t all = shape.elements();
    const std::uint64_t step = std::max<std::uint64_t>(1, kPieceElements / shape.columns()) * shape.columns();
    for (std::uint64_t at = 0; at < all; at += step)
      pieces.push_back({&change, at, std::min(step, all - at)});
  }
  return pieces;
}

// One thread's conversion of a piece.
struct Converter {
  const GgufFile& file;
  std::vector<float> values{};
  std::exception_ptr error{};  // the team's functions don't throw

  void operator()(const Piece& piece, std::vector<std::byte>& out) noexcept try {
    convert(piece, out);
  } catch (...) {
    error = std::current_exception();
  }

  void convert(const Piece& piece, std::vector<std::byte>& out) {
    const GgufTensor& t = *piece.change->tensor;
    const auto source =
        file.data(t).subspan(row_bytes(t.type, piece.begin), row_bytes(t.type, piece.elements));
    if (!piece.change->converts()) return out.assign(source.begin(), source.end());
    values.resize(piece.elements);
    dequantize(t.type, source.data(), piece.elements, values.data());
    if (!std::ranges::all_of(values, [](float x) { return std::isfinite(x); }))
      throw_error(ErrorKind::bad_input, "{} has values that are no finite numbers; the file is damaged",
                  t.name);
    out.resize(row_bytes(piece.change->to, piece.elements));
    quantize(piece.change->to, values.data(), piece.elements, out.data());
  }
};

// Converts the pieces in batches, and writes one while the next is being converted.
class Conversion {
 public:
  Conversion(const GgufFile& file, std::span<const TensorChange> changes, const QuantizeOptions& options,
             GgufWriter& writer)
      : file_(file),
        options_(options),
        writer_(writer),
        pieces_(cut(changes)),
        team_(std::max(1u, options.threads)) {
    for (unsigned i = 0; i < team_.size(); ++i) converters_.push_back({file});
    for (auto& batch : batches_) batch.resize(std::size_t{team_.size()} * 4);
    for (const Piece& piece : pieces_) total_ += read_bytes(piece);
  }

  void run() {
    std::future<void> written;
    for (std::size_t at = 0, turn = 0; at < pieces_.size(); turn ^= 1) {
      auto& batch = batches_[turn];
      const std::size_t n = std::min(batch.size(), pieces_.size() - at);
      convert(at, batch, n);
      if (written.valid()) written.get();
      written = std::async(std::launch::async, [this, &batch, n] {
        for (std::size_t i = 0; i < n; ++i) writer_.write(batch[i]);
      });
      finish(at, n);
      at += n;
    }
    if (written.valid()) written.get();
  }

 private:
  using Batch = std::vector<std::vector<std::byte>>;

  static std::uint64_t read_bytes(const Piece& piece) {
    return row_bytes(piece.change->tensor->type, piece.elements);
  }

  void convert(std::size_t at, Batch& batch, std::size_t n) {
    std::atomic<std::size_t> next{0};
    team_.run([&](unsigned thread, unsigned) {
      for (std::size_t i; (i = next.fetch_add(1)) < n;) converters_[thread](pieces_[at + i], batch[i]);
    });
  }

  void finish(std::size_t at, std::size_t n) {
    for (const Converter& c : converters_)
      if (c.error) std::rethrow_exception(c.error);
    for (std::size_t i = at; i < at + n; ++i) {
      const Piece& piece = pieces_[i];
      done_ += read_bytes(piece);
      file_.release(*piece.change->tensor, row_bytes(piece.change->tensor->type, piece.begin),
                    read_bytes(piece));
    }
    if (options_.progress) options_.progress(done_, total_);
  }

  const GgufFile& file_;
  const QuantizeOptions& options_;
  GgufWriter& writer_;
  const std::vector<Piece> pieces_;
  ThreadPool team_;
  std::vector<Converter> converters_;
  Batch batches_[2];
  std::uint64_t done_ = 0, total_ = 0;
};

void copy_metadata(const GgufFile& file, const QuantizeOptions& options, GgufWriter& writer) {
  for (const GgufEntry& entry : file.metadata().entries()) {
    const std::string_view key = entry.key();
    if (key == "general.alignment" || key == "general.file_type" || key == "general.quantization_version" ||
        key.starts_with("split."))
      continue;
    writer.add(entry);
  }
  writer.add_u32("general.file_type", mixture_file_type(options.mixture));
  writer.add_u32("general.quantization_version", kQuantizationVersion);
}

void check_room(const std::filesystem::path& path, std::uint64_t bytes) {
  std::error_code error;
  const auto parent = std::filesystem::absolute(path, error).parent_path();
  const auto space = std::filesystem::space(parent, error);
  if (error || !std::filesystem::is_directory(parent) || space.available >= bytes) return;
  throw_error(ErrorKind::io, "{} needs {} and {} has {}; make room or name another folder", path.string(),
              size_text(bytes, Rounding::up), parent.string(), size_text(space.available, Rounding::down));
}

}  // namespace

TypeRule parse_type_rule(const std::string& text) {
  const std::size_t at = text.rfind('=');
  const auto info = at == std::string::npos ? std::nullopt : find_dtype(text.substr(at + 1));
  if (!info || at == 0)
    throw_error(ErrorKind::bad_input,
                "'{}' is no rule for a tensor's type; write REGEX=TYPE, such as attn_v=q8_0", text);
  try {
    return {std::regex(text.substr(0, at)), info->type};
  } catch (const std::regex_error&) {
    throw_error(ErrorKind::bad_input, "'{}' is no regular expression", text.substr(0, at));
  }
}

double SizeTotals::bits() const {
  return 8.0 * static_cast<double>(after) / static_cast<double>(std::max(weights, std::uint64_t{1}));
}

SizeTotals totals_of(std::span<const TensorChange> changes) {
  SizeTotals t;
  for (const TensorChange& c : changes) {
    t.weights += c.tensor->shape.elements();
    t.before += c.tensor->bytes;
    t.after += c.bytes;
  }
  return t;
}

std::vector<TensorChange> choose_types(const GgufFile& file, const QuantizeOptions& options) {
  const TensorPlace place = model_place(file);
  std::vector<TensorChange> changes;
  for (const GgufTensor& t : file.tensors()) {
    const DType to = wanted_type(t, place, options);
    const bool lost = !is_float(t.type) && t.type != DType::Q8_0;
    if (to != t.type && lost && !options.requantize)
      throw_error(ErrorKind::bad_input,
                  "{} is {} already, and quantising again adds errors to errors; take the model in F16, BF16 "
                  "or Q8_0, or "
                  "say --allow-requantize",
                  t.name, dtype_info(t.type).name);
    changes.push_back({&t, to, row_bytes(to, t.shape.columns()) * t.shape.rows()});
  }
  return changes;
}

void write_quantized(const GgufFile& file, std::span<const TensorChange> changes,
                     const QuantizeOptions& options, const std::filesystem::path& path) {
  check_room(path, totals_of(changes).after);
  GgufWriter writer(path, static_cast<std::uint32_t>(file.alignment()));
  copy_metadata(file, options, writer);
  for (const TensorChange& c : changes) {
    const auto& dims = c.tensor->shape.dims;
    writer.add_tensor(c.tensor->name, std::span(dims).first(c.tensor->shape.n_dims), c.to);
  }
  Conversion(file, changes, options, writer).run();
  file.check_unchanged();
  writer.finish();
}

}  // namespace steelyard
