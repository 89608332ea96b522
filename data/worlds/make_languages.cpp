// Writes the six languages: conversations about one set of scenes, multiple-choice items in MMMB's layout,
// and lessons for a base model.

#include "data/json.h"
#include "data/published/base64.h"
#include "data/worlds/languages.h"
#include "data/worlds/make.h"
#include "data/worlds/make_files.h"
#include "tensor/files.h"
#include "tensor/json.h"

namespace burrow::data {
namespace fs = std::filesystem;
namespace {

// The image of scene `index` of a split and its question in English, the same for every language.
struct Asked {
  Image image;
  Question question;
};
Asked draw_asked(uint64_t seed, const char* what, int64_t index) {
  Random random = random_of(seed, fmt::format("data/languages/{}", what), index);
  Asked asked;
  std::optional<Question> question;
  while (!question) question = ask_plain(random, draw_general(random, asked.image));
  asked.question = *question;
  return asked;
}

void make_conversations(const fs::path& work, const LanguageOptions& o, const Progress& progress) {
  for (const Split& split : splits_of(o)) {
    fs::create_directories(work / "images" / split.name);
    for (int l = 0; l < language_count; ++l) {
      const std::string language = language_names[static_cast<size_t>(l)];
      write_list(
          work / fmt::format("{}_{}.json", language, split.name), split.samples, o.threads,
          fmt::format("{}/{}", language, split.name),
          [&](int64_t i) {
            const auto [image, q] = draw_asked(o.seed, split.name, i);
            const std::string file = fmt::format("{}/{:06}.png", split.name, i);
            if (l == 0) write_png(work / "images" / file, image);
            return record_line(fmt::format("{}-{}-{:06}", language, split.name, i), file,
                               {q.type, translate(q.question, l), translate(q.answer, l)}, language);
          },
          progress);
    }
  }
}

// Items in the layout of MMMB's files: the same questions in every language, drawn independently of
// conversations. Indices continue from train to test, so that the images of both may be in one folder.
void make_mmmb(const fs::path& work, const LanguageOptions& o, const Progress& progress) {
  const Split splits[] = {{"train", o.choices_train}, {"test", o.choices_test}};
  for (const Split& split : splits) {
    const int64_t first = &split == splits ? 0 : o.choices_train;
    for (int l = 0; l < language_count; ++l) {
      const char* language = language_names[static_cast<size_t>(l)];
      std::string table = "index\timage\tquestion\tA\tB\tC\tD\tanswer\tcategory\n";
      for (int64_t i = 0, at = 0; i < split.samples; ++at) {
        const std::string what = fmt::format("choices/{}", split.name);
        const auto [image, q] = draw_asked(o.seed, what.c_str(), at);
        Random random(random_key(o.seed, 1, fmt::format("data/languages/{}", what)),
                      static_cast<uint64_t>(at));
        const auto item = as_choices(random, q, l);
        if (!item) continue;
        table += fmt::format("{}\t{}\t{}\t{}\t{}\t{}\n", first + i++, base64(encode_png(image)),
                             item->question, fmt::join(item->choices, "\t"), item->label(), q.type);
        if (progress && i % 512 == 0)
          progress(fmt::format("mmmb/{}/{}", language, split.name), i, split.samples);
      }
      write_file_atomically((work / fmt::format("mmmb_{}_{}.tsv", language, split.name)).string(), table);
    }
  }
}

std::string choice_line(const std::string& id, const ChoiceItem& item) {
  return nlohmann::ordered_json{{"id", id},
                                {"task", item.shape->name},
                                {"question", item.question},
                                {"choices", item.choices},
                                {"answer", item.answer}}
      .dump();
}

struct Lessons {
  const char* split;
  int64_t images, texts, picks;
};

void make_lessons(const fs::path& work, const Lessons& l, const LanguagePretrainOptions& o,
                  const Progress& progress) {
  const auto draws = [&](const char* what, int64_t i) {
    return random_of(o.seed, fmt::format("data/languages/pretrain/{}/{}", what, l.split), i);
  };
  const auto file_of = [&](const char* what, const char* ending) {
    return work / fmt::format("{}_{}.{}", what, l.split, ending);
  };
  fs::create_directories(work / "images" / l.split);
  const auto caption = [&](int64_t i) {
    Random random = draws("captions", i);
    Image image;
    const GeneralScene scene = draw_general(random, image);
    const std::string file = fmt::format("{}/{:06}.png", l.split, i);
    write_png(work / "images" / file, image);
    std::string text;
    for (int r = 0; r < o.records_per_image; ++r)
      text += (r ? ",\n" : "") + record_line(fmt::format("caption-{}-{:06}-{}", l.split, i, r), file,
                                             describe(random, scene), language_names[0]);
    return text;
  };
  const auto text = [&](int64_t i) {
    Random random = draws("text", i);
    return record_line(fmt::format("text-{}-{:06}", l.split, i), "", text_lesson(random));
  };
  const auto pick = [&](int64_t i) {
    Random random = draws("picks", i);
    return choice_line(fmt::format("pick-{}-{:06}", l.split, i), pick_lesson(random));
  };
  const auto what = [&](const char* lesson) { return fmt::format("pretrain/{}/{}", lesson, l.split); };
  write_list(file_of("captions", "json"), l.images, o.threads, what("captions"), caption, progress);
  write_list(file_of("text", "json"), l.texts, o.threads, what("text"), text, progress);
  write_lines(file_of("picks", "jsonl"), l.picks, o.threads, what("picks"), pick, progress);
}

}  // namespace

bool make_languages(const fs::path& dir, const LanguageOptions& o, const Progress& progress) {
  BURROW_CHECK(
      sound({o.train, o.validation, o.test, o.choices_train, o.choices_test}) && o.threads > 0,
      "[make] train {}, validation {}, test {}, choices_train {}, choices_test {}, threads {}: out of range",
      o.train, o.validation, o.test, o.choices_train, o.choices_test, o.threads);
  const MakeLock lock(dir);
  make_tokenizer(dir, language_tokenizer());
  const nlohmann::json conversation_options = {
      {"seed", o.seed}, {"train", o.train}, {"validation", o.validation}, {"test", o.test}};
  const nlohmann::json choice_options = {
      {"seed", o.seed}, {"train", o.choices_train}, {"test", o.choices_test}};
  const bool conversations =
      make_folder(dir, "conversations", make_manifest("conversations", conversation_options),
                  [&](const fs::path& work) { make_conversations(work, o, progress); });
  return make_folder(dir, "mmmb", make_manifest("mmmb", choice_options),
                     [&](const fs::path& work) { make_mmmb(work, o, progress); }) ||
         conversations;
}

bool make_language_pretrain(const fs::path& dir, const LanguagePretrainOptions& o, const Progress& progress) {
  BURROW_CHECK(sound({o.images, o.texts, o.picks}) && o.threads > 0 && o.records_per_image > 0,
               "[make] images {}, records_per_image {}, texts {}, picks {}, threads {}: out of range",
               o.images, o.records_per_image, o.texts, o.picks, o.threads);
  const MakeLock lock(dir);
  make_tokenizer(dir, language_tokenizer());
  const nlohmann::json options = {
      {"seed", o.seed},   {"images", o.images},         {"records_per_image", o.records_per_image},
      {"texts", o.texts}, {"validation", o.validation}, {"picks", o.picks}};
  return make_folder(dir, "pretrain", make_manifest("language lessons", options), [&](const fs::path& work) {
    make_lessons(work, {"train", o.images, o.texts, o.picks}, o, progress);
    make_lessons(work, {"validation", o.validation, o.validation, o.validation}, o, progress);
  });
}

}  // namespace burrow::data
