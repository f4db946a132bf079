"""Words for synthetic prompts: short, common, one token each in nearly every tokenizer that knows English."""

from __future__ import annotations

_TEXT = """
the of and to in is that for it as was with be by on not he this are or his from at which but have an had
they you were their one all we can her has there been if more when will would who so no she other its may
these what them than some him time into only do my new about out also two any up first could our then most
see me should after said your very between made many over like those such work long being because through
people well before must now under state part world even where each much number same how way own while place
again against life right day last might found great used here another house both around old water small
during home city school without upon once take man down off hand high know year get come never thing give
name line point turn side order late hard early open seem help mean move try kind need change play run read
near add land food below keep start story far sea draw left thought plant light night real few north book
white children begin got walk ease paper group always music mark often letter until mile river car feet care
second enough plain girl usual young ready above ever red list though feel talk bird soon body dog family
direct pose leave song measure door product black short class wind question happen complete ship area half
rock fire south problem piece told knew pass top whole king space heard best hour better true hundred five
remember step hold west ground interest reach fast sing listen six table travel less morning ten simple
several toward war lay pattern slow center love person money serve appear road map rain rule govern pull
cold notice voice unit power town fine certain fly fall lead cry dark machine note wait plan figure star box
noun field rest correct able pound done beauty drive stood contain front teach week final gave green quick
develop ocean warm free minute strong special mind behind clear tail produce fact street inch nothing course
stay wheel full force blue object decide surface deep moon island foot system busy test record boat common
gold possible plane dry wonder laugh thousand ago ran check game shape hot miss brought heat snow tire bring
yes distant fill east paint language among grand ball yet wave drop heart present heavy dance engine
position arm wide sail material size vary settle speak weight general ice matter circle pair include divide
felt perhaps pick sudden count square reason length represent art subject region energy hunt bed brother egg
ride cell believe fraction forest sit race window store summer train sleep prove lone leg exercise wall
catch mount wish sky board joy winter sat written wild instrument kept glass grass cow job edge sign visit
past soft fun bright gas weather month million bear finish happy hope flower clothes strange gone jump baby
eight village meet root buy raise solve metal whether push seven third held hair describe cook floor either
result burn hill safe cat century consider type law bit coast copy phrase silent tall sand soil roll
temperature finger industry value fight lie beat excite natural view sense ear else quite broke case middle
kill son lake moment scale loud spring observe child straight nation dictionary milk speed method organ pay
age section dress cloud surprise quiet stone tiny climb cool design poor lot experiment bottom key iron
single stick flat twenty skin smile crease hole trade melody trip office receive row mouth exact symbol die
least trouble shout except wrote seed tone join suggest clean break lady yard rise bad blow oil blood touch
grew cent mix team wire cost lost brown wear garden equal sent choose
"""
VOCABULARY: tuple[str, ...] = tuple(_TEXT.split())
